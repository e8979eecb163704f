// A histogram for hot paths: an observation is two relaxed atomic additions and a binary search.
// prometheus::Histogram takes a mutex instead, which 80 000 inter-token latencies a second notice.
#pragma once

#include <prometheus/client_metric.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace hgrn2 {

// Thread-safe.
class AtomicHistogram {
 public:
  // Upper bounds, ascending; +Inf is implied.
  explicit AtomicHistogram(std::vector<double> bounds);

  void Observe(double value);
  uint64_t count() const;
  // A snapshot. Observations made meanwhile may be in the buckets and not yet in the sum.
  prometheus::ClientMetric Collect() const;

 private:
  const std::vector<double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // [bounds + 1]
  std::atomic<double> sum_{0};
};

// vLLM's bounds with finer ones below them: these models step in fractions of a millisecond.
std::vector<double> TimeToFirstTokenBounds();
std::vector<double> InterTokenLatencyBounds();
std::vector<double> RequestLatencyBounds();
std::vector<double> StepTimeBounds();
// 1, 2, 5, 10, ... up to `limit`.
std::vector<double> OneTwoFiveBounds(double limit);
std::vector<double> IterationTokensBounds();

}  // namespace hgrn2
