// Bounded multi-producer single-consumer queue. Neither side ever blocks on the other's work: Push
// fails when full; PopAll takes everything that is there, waiting at most the given time.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"

namespace hgrn2 {

template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False (and `item` untouched) when full or closed.
  bool Push(T&& item) {
    {
      MutexLock lock(&mu_);
      if (closed_ || items_.size() >= capacity_) return false;
      items_.push_back(std::move(item));
      if (!waiting_) return true;
    }
    cv_.NotifyOne();
    return true;
  }

  // Everything queued, oldest first; empty after `timeout`, a Wake or a Close. A zero timeout
  // polls.
  std::vector<T> PopAll(Duration timeout) {
    MutexLock lock(&mu_);
    if (items_.empty() && !closed_ && !woken_ && timeout > Duration::zero()) {
      waiting_ = true;
      cv_.WaitFor(&mu_, timeout);
      waiting_ = false;
    }
    woken_ = false;
    return std::exchange(items_, {});
  }

  // Makes a waiting (or the next) PopAll return at once.
  void Wake() {
    {
      MutexLock lock(&mu_);
      woken_ = true;
    }
    cv_.NotifyOne();
  }

  void Close() {
    {
      MutexLock lock(&mu_);
      closed_ = true;
    }
    cv_.NotifyAll();
  }

  size_t size() const {
    MutexLock lock(&mu_);
    return items_.size();
  }

 private:
  const size_t capacity_;
  mutable Mutex mu_;
  CondVar cv_;
  std::vector<T> items_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hgrn2
