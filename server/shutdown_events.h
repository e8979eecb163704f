// Why the server should stop: SIGTERM or SIGINT, or the engine's failure.
#pragma once

#include <atomic>
#include <string>

#include "base/mutex.h"

namespace hgrn2 {

// Thread-safe. Lives until the process ends.
class ShutdownEvents {
 public:
  struct Event {
    bool fatal = false;
    std::string reason;  // "SIGTERM"
  };

  // Blocks SIGTERM and SIGINT in this and every later thread and handles them on a thread of their
  // own: once armed, the first one posts an event and a second ends the process at once with status
  // 128 + signal.
  // REQUIRES: called once, before other threads exist.
  static ShutdownEvents& Install();

  // From now on the first signal posts an event. Before (while a model loads) it ends the process
  // at once: there is nothing to drain.
  void Arm() { armed_ = true; }
  void Post(Event event);
  Event Wait();  // the first event

 private:
  std::atomic<bool> armed_{false};
  Mutex mu_;
  CondVar cv_;
  bool posted_ ABSL_GUARDED_BY(mu_) = false;
  Event event_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hgrn2
