#include "client/load/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace hgrn2::client {

size_t Histogram::BucketOf(uint64_t value) const {
  const int shift = std::max(0, static_cast<int>(std::bit_width(value)) - (bits_ + 1));
  return (static_cast<size_t>(shift) << bits_) + static_cast<size_t>(value >> shift);
}

double Histogram::MiddleOf(size_t bucket) const {
  const size_t per_octave = size_t{1} << bits_;
  const size_t shift = bucket < 2 * per_octave ? 0 : (bucket >> bits_) - 1;
  const auto mantissa = static_cast<double>(bucket - (shift << bits_));
  const double width = std::ldexp(1.0, static_cast<int>(shift));
  return mantissa * width + (width - 1) / 2;
}

void Histogram::Add(int64_t value) {
  value = std::max<int64_t>(value, 0);
  const size_t bucket = BucketOf(static_cast<uint64_t>(value));
  if (bucket >= counts_.size()) counts_.resize(bucket + 1);
  ++counts_[bucket];
  min_ = count_ == 0 ? value : std::min(min_, value);
  max_ = count_ == 0 ? value : std::max(max_, value);
  ++count_;
  const auto x = static_cast<double>(value);
  sum_ += x;
  sum_of_squares_ += x * x;
}

void Histogram::Merge(const Histogram& other) {
  if (other.count_ == 0) return;
  if (other.counts_.size() > counts_.size()) counts_.resize(other.counts_.size());
  for (size_t i = 0; i < other.counts_.size(); ++i) counts_[i] += other.counts_[i];
  min_ = count_ == 0 ? other.min_ : std::min(min_, other.min_);
  max_ = count_ == 0 ? other.max_ : std::max(max_, other.max_);
  count_ += other.count_;
  sum_ += other.sum_;
  sum_of_squares_ += other.sum_of_squares_;
}

double Histogram::Mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

double Histogram::StdDev() const {
  if (count_ == 0) return 0;
  const double mean = Mean();
  return std::sqrt(std::max(0.0, sum_of_squares_ / static_cast<double>(count_) - mean * mean));
}

double Histogram::ValueAtRank(uint64_t rank) const {
  uint64_t seen = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen > rank) {
      return std::clamp(MiddleOf(i), static_cast<double>(min_), static_cast<double>(max_));
    }
  }
  return static_cast<double>(max_);
}

double Histogram::Quantile(double q) const {
  if (count_ == 0) return 0;
  const double rank = std::clamp(q, 0.0, 1.0) * static_cast<double>(count_ - 1);
  const double below = std::floor(rank);
  const double low = ValueAtRank(static_cast<uint64_t>(below));
  if (rank == below) return low;
  return low + (rank - below) * (ValueAtRank(static_cast<uint64_t>(below) + 1) - low);
}

double Histogram::ShareAtMost(int64_t value) const {
  if (count_ == 0 || value < 0) return 0;
  const size_t last = BucketOf(static_cast<uint64_t>(value));
  uint64_t seen = 0;
  for (size_t i = 0; i < counts_.size() && i <= last; ++i) seen += counts_[i];
  return static_cast<double>(seen) / static_cast<double>(count_);
}

std::vector<std::pair<double, double>> Histogram::Cdf(size_t max_points) const {
  std::vector<std::pair<double, double>> points;
  uint64_t seen = 0;
  double next_share = 0;
  const double step = 1.0 / static_cast<double>(max_points);
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] == 0) continue;
    seen += counts_[i];
    const double share = static_cast<double>(seen) / static_cast<double>(count_);
    if (share < next_share && seen != count_) continue;
    points.emplace_back(MiddleOf(i), share);
    next_share = share + step;
  }
  return points;
}

}  // namespace hgrn2::client
