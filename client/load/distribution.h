// Distributions of lengths and waiting times, as written on the command line.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/load/random.h"

namespace hgrn2::client {

// One of
//   128                        always 128
//   uniform:MIN:MAX            both included
//   lognormal:MEDIAN:SIGMA[:MIN:MAX]   sigma of the logarithm; clamped to [MIN, MAX]
//   file:PATH                  a number per line, drawn with equal probability
// Immutable after parsing.
class Distribution {
 public:
  Distribution() = default;  // always 0
  // `what` names the flag in errors. Numbers must be >= `min`.
  static absl::StatusOr<Distribution> Parse(const std::string& what, const std::string& spec,
                                            double min);

  double Sample(Random* random) const;
  int SampleInt(Random* random) const;  // rounded
  const std::string& spec() const { return spec_; }
  bool always_zero() const { return kind_ == Kind::kFixed && a_ == 0; }

 private:
  enum class Kind { kFixed, kUniform, kLogNormal, kFile };
  absl::Status LoadFile(const std::string& path);

  Kind kind_ = Kind::kFixed;
  std::string spec_ = "0";
  double a_ = 0;  // value, MIN or MEDIAN
  double b_ = 0;  // MAX or SIGMA
  double min_ = 0;
  double max_ = 0;
  std::vector<double> values_;
};

}  // namespace hgrn2::client
