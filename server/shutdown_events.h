// Why the server should stop: SIGTERM or SIGINT, or the engine's failure.
#pragma once

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
  // own: the first one posts an event, a second ends the process at once with status 128 + signal.
  // REQUIRES: called once, before other threads exist.
  static ShutdownEvents& Install();

  void Post(Event event);
  Event Wait();  // the first event

 private:
  Mutex mu_;
  CondVar cv_;
  bool posted_ ABSL_GUARDED_BY(mu_) = false;
  Event event_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hgrn2
