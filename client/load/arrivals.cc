#include "client/load/arrivals.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "client/load/spec.h"

namespace hgrn2::client {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr uint64_t kArrivalStream = 1;

// Time within a piece of linear rate at which `count` arrivals are expected: the positive root of
// from t + slope t^2 / 2 = count, in the form that does not cancel.
double SolvePiece(double from, double slope, double count) {
  if (count <= 0) return 0;
  return 2 * count / (from + std::sqrt(std::max(0.0, from * from + 2 * slope * count)));
}

}  // namespace

absl::StatusOr<RateProfile> RateProfile::Parse(const std::string& spec) {
  RateProfile profile;
  profile.spec_ = spec;
  const auto error = [&](const std::string& problem) {
    return absl::InvalidArgumentError(fmt::format("--rate '{}': {}", spec, problem));
  };
  absl::StatusOr<Spec> parsed = ParseSpec(spec);
  if (!parsed.ok()) return error(std::string(parsed.status().message()));
  const auto& [name, n] = *parsed;
  for (double value : n) {
    if (value < 0) return error("numbers must not be negative");
  }
  if (name.empty() && n.size() == 1) {
    if (n[0] == 0) return error("must be above 0");
    profile.infinite_ = std::isinf(n[0]);
    if (!profile.infinite_) profile.pieces_.push_back({kInfinity, n[0], n[0]});
  } else if (name == "ramp" && n.size() == 3 && n[2] > 0 && n[0] + n[1] > 0) {
    profile.pieces_ = {{n[2], n[0], n[1]}, {kInfinity, n[1], n[1]}};
  } else if (name == "step" && n.size() >= 2 && n.back() > 0) {
    for (size_t i = 0; i + 1 < n.size(); ++i) profile.pieces_.push_back({n.back(), n[i], n[i]});
    profile.pieces_.back().seconds = kInfinity;
  } else {
    return error("expected R, inf, ramp:FROM:TO:SECONDS or step:R1,R2,...:SECONDS");
  }
  for (const Piece& piece : profile.pieces_) {
    if (std::isinf(piece.from) || std::isinf(piece.to)) return error("rates must be finite");
  }
  return profile;
}

double RateProfile::TimeOf(double count) const {
  if (infinite_) return 0;
  double begin = 0;
  for (const Piece& piece : pieces_) {
    if (std::isinf(piece.seconds)) {
      return count <= 0 ? begin : piece.from > 0 ? begin + count / piece.from : kInfinity;
    }
    const double whole = (piece.from + piece.to) / 2 * piece.seconds;
    if (count <= whole) {
      return begin + SolvePiece(piece.from, (piece.to - piece.from) / piece.seconds, count);
    }
    count -= whole;
    begin += piece.seconds;
  }
  return kInfinity;
}

double RateProfile::RateAt(double t) const {
  if (infinite_) return kInfinity;
  for (const Piece& piece : pieces_) {
    if (t <= piece.seconds) {
      if (std::isinf(piece.seconds)) return piece.from;
      return piece.from + (piece.to - piece.from) * t / piece.seconds;
    }
    t -= piece.seconds;
  }
  return 0;
}

ArrivalProcess::ArrivalProcess(RateProfile profile, ArrivalKind kind, double burstiness,
                               uint64_t seed)
    : profile_(std::move(profile)),
      kind_(kind),
      burstiness_(burstiness),
      random_(seed, kArrivalStream) {}

double ArrivalProcess::Next() {
  switch (kind_) {
    case ArrivalKind::kConstant:
      count_ += 1;
      break;
    case ArrivalKind::kPoisson:
      count_ += random_.Exponential();
      break;
    case ArrivalKind::kGamma:
      count_ += random_.Gamma(burstiness_) / burstiness_;
      break;
  }
  return profile_.TimeOf(count_);
}

}  // namespace hgrn2::client
