// How a worker thread waits for its next task.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace hgrn2 {

// A loop may serve events of its own while it waits: a server's workers wait on the completion
// queues of the streams that they write to, so that no other thread has to be woken for a write's
// completion.
class WorkerLoop {
 public:
  virtual ~WorkerLoop() = default;
  // The worker's thread alone: returns after a Wake since the last Wait began, or earlier, at the
  // latest when an event of its own has been served.
  virtual void Wait() = 0;
  // The worker's thread, between two lots of tasks: serves the events that have come.
  virtual void Poll() {}
  // Any thread. Must not block.
  virtual void Wake() = 0;
};

// Loops that wait for Wake alone.
std::vector<std::unique_ptr<WorkerLoop>> PlainWorkerLoops(int32_t n);

}  // namespace hgrn2
