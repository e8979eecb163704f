// Several engines, one per device, behind one Engine: a request goes to the one with the least
// unfinished work, and stays there.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace hgrn2 {

// Thread-safe as Engine is.
class EngineRouter : public Engine {
 public:
  // REQUIRES: at least one engine, all of the same model.
  explicit EngineRouter(std::vector<std::unique_ptr<Engine>> engines);

  // Tries the engines from the least loaded on; the last one's error if all refuse.
  absl::StatusOr<RequestHandle> Submit(EngineRequest request) override;
  void Cancel(RequestHandle handle) override;
  void StopChoice(RequestHandle handle, int32_t choice) override;
  bool Drain(Duration timeout) override;  // all at the same time
  // Sums; the oldest heartbeat; failed if any has failed.
  EngineStats Stats() const override;
  // The first engine's, with the devices' names joined and slots and weights added up.
  const BackendInfo& backend_info() const override { return info_; }
  void SetFatalErrorCallback(std::function<void(const absl::Status&)> done) override;
  bool StepOnce() override;

 private:
  struct Member {
    std::unique_ptr<Engine> engine;
    // Choices (or continuations) submitted and not done. Shared with sinks, which may outlive us.
    std::shared_ptr<std::atomic<int64_t>> load;
  };
  std::vector<size_t> LeastLoadedFirst() const;

  std::vector<Member> members_;
  BackendInfo info_;
};

}  // namespace hgrn2
