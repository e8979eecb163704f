// Injected time. Everything that compares times takes a Clock, so that tests own time.
#pragma once

#include <atomic>
#include <chrono>

namespace hgrn2 {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

inline constexpr TimePoint kInfiniteFuture = TimePoint::max();

inline double ToSeconds(Duration d) { return std::chrono::duration<double>(d).count(); }

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;

  // The process-wide steady clock; never destroyed.
  static const Clock& Real();
};

// Stands still until Advance. Thread-safe.
class FakeClock : public Clock {
 public:
  TimePoint Now() const override {
    return TimePoint(Duration(ns_.load(std::memory_order_acquire)));
  }
  void Advance(Duration d) { ns_.fetch_add(d.count(), std::memory_order_acq_rel); }

 private:
  std::atomic<int64_t> ns_{1'000'000'000};
};

}  // namespace hgrn2
