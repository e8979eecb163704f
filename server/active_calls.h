#pragma once

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"

namespace hgrn2 {

// Counts the calls that gRPC has not finished with, so that a shutdown can wait for their last
// messages. grpc::Server::Shutdown is no substitute: it waits for idle clients to hang up as well,
// and those may take seconds to notice. Thread-safe.
class ActiveCalls {
 public:
  // Counts one call for as long as it lives.
  class Lease {
   public:
    explicit Lease(ActiveCalls* calls) : calls_(calls) { calls_->Add(1); }
    ~Lease() { Release(); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    void Release() {
      if (ActiveCalls* const calls = std::exchange(calls_, nullptr)) calls->Add(-1);
    }

   private:
    ActiveCalls* calls_;
  };

  // False if some are left after `timeout`.
  bool WaitForNone(Duration timeout) {
    const TimePoint give_up = Clock::Real().Now() + timeout;
    MutexLock lock(&mu_);
    while (count_ > 0) {
      const Duration left = give_up - Clock::Real().Now();
      if (left <= Duration::zero()) return false;
      cv_.WaitFor(&mu_, left);
    }
    return true;
  }

  // Waits until no call has come for `quiet`, at most `timeout`.
  void WaitForQuiet(Duration quiet, Duration timeout) {
    const TimePoint give_up = Clock::Real().Now() + timeout;
    MutexLock lock(&mu_);
    TimePoint quiet_at = Clock::Real().Now() + quiet;  // at first: calls may be on their way
    while (true) {
      quiet_at = std::max(quiet_at, last_call_ + quiet);
      const TimePoint until = std::min(quiet_at, give_up);
      const Duration left = until - Clock::Real().Now();
      if (left <= Duration::zero()) return;
      cv_.WaitFor(&mu_, left);
    }
  }

 private:
  void Add(int n) {
    MutexLock lock(&mu_);
    count_ += n;
    if (n > 0) last_call_ = Clock::Real().Now();
    // Under the lock: a waiter may destroy this as soon as it sees zero.
    if (count_ == 0) cv_.NotifyAll();
  }

  Mutex mu_;
  CondVar cv_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
  TimePoint last_call_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hgrn2
