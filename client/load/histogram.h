// Log-linear histogram of non-negative integers (nanoseconds here), after Tene's HdrHistogram:
// every power of two is cut into 2^bits equal buckets, so a reported value is within 2^-(bits+1) of
// the true one: 0.05 % for 10 bits. Memory grows with the logarithm of the largest value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace hgrn2::client {

class Histogram {
 public:
  explicit Histogram(int bits = 10) : bits_(bits) {}

  void Add(int64_t value);  // negative counts as 0
  // REQUIRES: the same bits.
  void Merge(const Histogram& other);

  uint64_t count() const { return count_; }
  double Mean() const;    // exact; 0 if empty
  double StdDev() const;  // exact, population; 0 if empty
  int64_t Min() const { return count_ == 0 ? 0 : min_; }
  int64_t Max() const { return count_ == 0 ? 0 : max_; }
  // q in [0, 1]; linear interpolation between ranks, as numpy.percentile; 0 if empty.
  double Quantile(double q) const;
  // Share of values <= `value`, to the histogram's resolution.
  double ShareAtMost(int64_t value) const;
  // {value, share of values <= it} at every occupied bucket, at most `max_points` of them.
  std::vector<std::pair<double, double>> Cdf(size_t max_points) const;

 private:
  size_t BucketOf(uint64_t value) const;
  double MiddleOf(size_t bucket) const;
  double ValueAtRank(uint64_t rank) const;

  int bits_;
  std::vector<uint32_t> counts_;
  uint64_t count_ = 0;
  double sum_ = 0;
  double sum_of_squares_ = 0;
  int64_t min_ = 0;
  int64_t max_ = 0;
};

}  // namespace hgrn2::client
