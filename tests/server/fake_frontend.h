// A Frontend whose requests are driven by the test: it records them and hands out their handlers.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "engine/frontend/frontend.h"

namespace hgrn2::testing {

// A request as the frontend sees it. The test is its worker thread.
struct FakeRequest : public RequestControl {
  CompletionRequest completion;
  std::shared_ptr<CompletionHandler> handler;
  ScoreInput score;
  std::shared_ptr<ScoreHandler> score_handler;

  void Cancel() override {
    MutexLock lock(&mu);
    cancelled = true;
    cv.NotifyAll();
  }
  // False if it was not cancelled within `timeout`.
  bool WaitCancelled(std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
    const auto give_up = std::chrono::steady_clock::now() + timeout;
    MutexLock lock(&mu);
    while (!cancelled && std::chrono::steady_clock::now() < give_up) {
      cv.WaitFor(&mu, std::chrono::milliseconds(20));
    }
    return cancelled;
  }
  void Delta(std::string text, int32_t index = 0) {
    ChoiceDelta delta;
    delta.index = index;
    delta.text = std::move(text);
    handler->OnDelta(std::move(delta));
  }
  void Finish(const absl::Status& status = absl::OkStatus()) {
    handler->OnDone(status, {3, 4, 0}, {0.1, 0.2, 0.3});
    handler.reset();
  }

  Mutex mu;
  CondVar cv;
  bool cancelled ABSL_GUARDED_BY(mu) = false;
};

class FakeFrontend : public Frontend {
 public:
  // A real request lets go of its handler when it ends, which breaks the cycle of both.
  ~FakeFrontend() override {
    MutexLock lock(&mu_);
    for (const auto& request : requests_) {
      request->handler.reset();
      request->score_handler.reset();
    }
  }
  absl::StatusOr<std::shared_ptr<RequestControl>> Generate(
      CompletionRequest request, std::shared_ptr<CompletionHandler> handler) override {
    RETURN_IF_ERROR(refuse);
    auto fake = std::make_shared<FakeRequest>();
    fake->completion = std::move(request);
    fake->handler = std::move(handler);
    if (on_generate) on_generate(*fake);
    return Record(std::move(fake));
  }
  absl::StatusOr<std::shared_ptr<RequestControl>> Score(
      ScoreInput input, std::shared_ptr<ScoreHandler> handler) override {
    RETURN_IF_ERROR(refuse);
    auto fake = std::make_shared<FakeRequest>();
    fake->score = std::move(input);
    fake->score_handler = std::move(handler);
    return Record(std::move(fake));
  }
  absl::StatusOr<std::vector<int32_t>> Tokenize(const std::string& model, const std::string&,
                                                bool) override {
    RETURN_IF_ERROR(CheckModel(model));
    return absl::FailedPreconditionError("no tokenizer");
  }
  absl::StatusOr<std::string> Detokenize(const std::string& model, const std::vector<int32_t>& ids,
                                         bool skip_special_tokens) override {
    RETURN_IF_ERROR(CheckModel(model));
    return fmt::format("{} ids{}", ids.size(), skip_special_tokens ? ", no specials" : "");
  }
  absl::Status CheckModel(const std::string& model) const override {
    if (model.empty() || model == name_) return absl::OkStatus();
    return absl::NotFoundError("no such model");
  }
  const Tokenizer* tokenizer() const override { return nullptr; }
  const std::string& served_model_name() const override { return name_; }

  // The next request, in order of arrival; null if none comes.
  std::shared_ptr<FakeRequest> Next() {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    MutexLock lock(&mu_);
    while (next_ == requests_.size() && std::chrono::steady_clock::now() < give_up) {
      cv_.WaitFor(&mu_, std::chrono::milliseconds(20));
    }
    return next_ < requests_.size() ? requests_[next_++] : nullptr;
  }

  absl::Status refuse;                            // set before the call
  std::function<void(FakeRequest&)> on_generate;  // runs inside Generate

 private:
  std::shared_ptr<RequestControl> Record(std::shared_ptr<FakeRequest> request) {
    MutexLock lock(&mu_);
    requests_.push_back(request);
    cv_.NotifyAll();
    return request;
  }

  const std::string name_ = "fake";
  Mutex mu_;
  CondVar cv_;
  std::vector<std::shared_ptr<FakeRequest>> requests_ ABSL_GUARDED_BY(mu_);
  size_t next_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hgrn2::testing
