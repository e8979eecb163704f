// Comparing arrays of numbers in tests.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace hgrn2::testing {

// ||actual - expected|| / ||expected||, in double. Infinite (so that every bound fails) if the
// sizes differ or anything is not finite; the plain norm of `actual` if expected is all zero.
template <typename A, typename B>
double RelativeError(const std::vector<A>& actual, const std::vector<B>& expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double a = static_cast<double>(actual[i]);
    const double b = static_cast<double>(expected[i]);
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  const double error = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

}  // namespace hgrn2::testing
