#include "engine/frontend/worker_loop.h"

#include <utility>

#include "base/mutex.h"

namespace hgrn2 {
namespace {

class PlainLoop final : public WorkerLoop {
 public:
  void Wait() override {
    MutexLock lock(&mu_);
    while (!std::exchange(woken_, false)) cv_.Wait(&mu_);
  }
  void Wake() override {
    {
      MutexLock lock(&mu_);
      woken_ = true;
    }
    cv_.NotifyOne();
  }

 private:
  Mutex mu_;
  CondVar cv_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

std::vector<std::unique_ptr<WorkerLoop>> PlainWorkerLoops(int32_t n) {
  std::vector<std::unique_ptr<WorkerLoop>> loops;
  for (int32_t i = 0; i < n; ++i) loops.push_back(std::make_unique<PlainLoop>());
  return loops;
}

}  // namespace hgrn2
