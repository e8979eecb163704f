// An Engine without a model, driven by the test.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace hgrn2::testing {

class FakeEngine : public Engine {
 public:
  absl::StatusOr<RequestHandle> Submit(EngineRequest request) override {
    if (!refuse.ok()) return refuse;
    requests.emplace(next_handle_, std::move(request));
    return next_handle_++;
  }
  void Cancel(RequestHandle handle) override { cancelled.push_back(handle); }
  void StopChoice(RequestHandle handle, int32_t choice) override {
    stopped.emplace_back(handle, choice);
  }
  bool Drain(Duration timeout) override {
    std::this_thread::sleep_for(std::min<Duration>(timeout, drain_time));
    return drain_time <= timeout;
  }
  EngineStats Stats() const override { return stats; }
  const BackendInfo& backend_info() const override { return info; }
  void SetFatalErrorCallback(std::function<void(const absl::Status&)> done) override {
    on_fatal = std::move(done);
  }
  bool StepOnce() override { return false; }

  void FinishAll() {
    for (auto& [handle, request] : requests) request.sink->OnDone(absl::OkStatus(), {}, {});
    requests.clear();
  }

  absl::Status refuse;
  EngineStats stats;
  BackendInfo info;
  Duration drain_time{0};
  std::map<RequestHandle, EngineRequest> requests;  // not finished
  std::vector<RequestHandle> cancelled;
  std::vector<std::pair<RequestHandle, int32_t>> stopped;
  std::function<void(const absl::Status&)> on_fatal;

 private:
  RequestHandle next_handle_ = 1;
};

}  // namespace hgrn2::testing
