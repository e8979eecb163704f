// --find-max and --sweep: which rates to try next. Knows nothing of how a rate is tried.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2::client {

struct FindMaxOptions {
  double start = 1;         // requests/s tried first
  double precision = 0.05;  // stop when the lowest bad rate is within this of the highest good one
  double lowest = 1e-3;     // give up below
  int max_probes = 40;
};

// Highest rate that `probe` (rate -> good enough?) accepts: doubles or halves from the start until
// a good and a bad rate enclose it, then bisects on the logarithm. 0 if even the lowest fails.
// A probe's error ends the search and is returned, unless a good rate is already known.
absl::StatusOr<double> FindMaxRate(const FindMaxOptions& options,
                                   const std::function<absl::StatusOr<bool>(double)>& probe);

// Rates of "1,2,4" or of "FROM:TO:COUNT" (geometric). Increasing, all > 0.
absl::StatusOr<std::vector<double>> ParseSweep(const std::string& spec);

}  // namespace hgrn2::client
