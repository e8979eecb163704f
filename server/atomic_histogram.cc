#include "server/atomic_histogram.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace hgrn2 {

AtomicHistogram::AtomicHistogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(new std::atomic<uint64_t>[bounds_.size() + 1]()) {}

void AtomicHistogram::Observe(double value) {
  // A bucket holds values <= its bound.
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[bucket].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

uint64_t AtomicHistogram::count() const {
  uint64_t total = 0;
  for (size_t i = 0; i <= bounds_.size(); ++i) total += counts_[i].load(std::memory_order_relaxed);
  return total;
}

prometheus::ClientMetric AtomicHistogram::Collect() const {
  prometheus::ClientMetric metric;
  uint64_t cumulative = 0;
  metric.histogram.bucket.reserve(bounds_.size() + 1);
  for (size_t i = 0; i <= bounds_.size(); ++i) {
    cumulative += counts_[i].load(std::memory_order_relaxed);
    metric.histogram.bucket.push_back(
        {cumulative, i < bounds_.size() ? bounds_[i] : std::numeric_limits<double>::infinity()});
  }
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = sum_.load(std::memory_order_relaxed);
  return metric;
}

std::vector<double> TimeToFirstTokenBounds() {
  return {0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01,  0.02,  0.04,
          0.06,    0.08,   0.1,   0.25,   0.5,   0.75,   1.0,   2.5,   5.0,
          7.5,     10.0,   20.0,  40.0,   80.0,  160.0,  640.0, 2560.0};
}

std::vector<double> InterTokenLatencyBounds() {
  return {0.0001, 0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075,
          0.01,   0.025,   0.05,   0.075,   0.1,   0.15,   0.2,   0.3,   0.4,   0.5,
          0.75,   1.0,     2.5,    5.0,     7.5,   10.0,   20.0,  40.0,  80.0};
}

std::vector<double> RequestLatencyBounds() {
  return {0.0001, 0.0005, 0.001, 0.005, 0.01,  0.025, 0.05,  0.1,   0.2,    0.3,
          0.5,    0.8,    1.0,   1.5,   2.0,   2.5,   5.0,   10.0,  15.0,   20.0,
          30.0,   40.0,   50.0,  60.0,  120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
}

std::vector<double> StepTimeBounds() {
  return {0.000001, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.002,
          0.003,    0.005,    0.0075,  0.01,     0.025,   0.05,   0.1,     0.25,   0.5,   1.0};
}

std::vector<double> OneTwoFiveBounds(double limit) {
  std::vector<double> bounds;
  for (double decade = 1; decade <= limit; decade *= 10) {
    for (const double mantissa : {1, 2, 5}) {
      if (mantissa * decade <= limit) bounds.push_back(mantissa * decade);
    }
  }
  return bounds;
}

std::vector<double> IterationTokensBounds() {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

}  // namespace hgrn2
