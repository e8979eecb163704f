// Ctrl-C and SIGTERM as a callback on an ordinary thread, where gRPC may be called.
#pragma once

#include <functional>

namespace hgrn2::client {

inline constexpr int kInterruptedExitCode = 130;  // 128 + SIGINT, as shells report it

// Blocks SIGINT and SIGTERM in the calling thread and all it starts later, and starts the thread
// that waits for them. Call once, first thing in main. Without a handler, or on a second signal,
// the process exits at once with kInterruptedExitCode.
void InstallInterruptThread();

// While alive, the first signal calls `handler` (on the signal thread). One at a time.
class InterruptHandler {
 public:
  explicit InterruptHandler(std::function<void()> handler);
  ~InterruptHandler();
  InterruptHandler(const InterruptHandler&) = delete;
  InterruptHandler& operator=(const InterruptHandler&) = delete;
};

// True once a signal arrived.
bool Interrupted();

}  // namespace hgrn2::client
