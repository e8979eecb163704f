// When requests arrive in an open loop: a renewal process (how regular) under a rate profile (how
// many), combined by rescaling time, so that every process can follow every profile.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/load/random.h"

namespace hgrn2::client {

// Requests per second over time: pieces on which the rate is linear; the last rate holds for ever.
class RateProfile {
 public:
  // 20 | inf | ramp:FROM:TO:SECONDS | step:R1,R2,...:SECONDS (each step lasts SECONDS)
  static absl::StatusOr<RateProfile> Parse(const std::string& spec);

  // Time at which the expected number of arrivals since 0 reaches `count`; never decreasing.
  // +inf if it never does.
  double TimeOf(double count) const;
  double RateAt(double t) const;
  const std::string& spec() const { return spec_; }
  bool infinite() const { return infinite_; }

 private:
  struct Piece {
    double seconds;
    double from;
    double to;
  };
  std::string spec_;
  std::vector<Piece> pieces_;  // empty if infinite
  bool infinite_ = false;
};

// Gaps of mean 1 before rescaling: constant; poisson (exponential); gamma with shape `burstiness`
// (1 is poisson, below 1 burstier, above 1 more regular; as vLLM's --burstiness).
enum class ArrivalKind { kPoisson, kConstant, kGamma };

// Not thread-safe. The same (profile, kind, burstiness, seed) gives the same times.
class ArrivalProcess {
 public:
  ArrivalProcess(RateProfile profile, ArrivalKind kind, double burstiness, uint64_t seed);

  // Seconds since the start of the run of the next arrival; +inf if there is none.
  double Next();

 private:
  const RateProfile profile_;
  const ArrivalKind kind_;
  const double burstiness_;
  Random random_;
  double count_ = 0;
};

}  // namespace hgrn2::client
