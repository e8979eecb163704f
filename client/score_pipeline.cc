#include "client/score_pipeline.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "client/rpc_error.h"

namespace hgrn2::client {

struct ScorePipeline::Call {
  uint64_t index;
  int attempt = 0;
  v1::ScoreRequest request;
  v1::ScoreResponse response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientContext> context;  // anew for each attempt
  // Anew for each retry: the one before may still be running the callback that led here.
  std::unique_ptr<grpc::Alarm> alarm;
};

ScorePipeline::ScorePipeline(std::shared_ptr<grpc::Channel> channel,
                             const ConnectionOptions& connection, int max_in_flight,
                             int max_retries, Emit emit)
    : stub_(v1::Inference::NewStub(channel)),
      connection_(connection),
      max_in_flight_(max_in_flight),
      max_retries_(max_retries),
      emit_(std::move(emit)) {}

ScorePipeline::~ScorePipeline() {
  Cancel();
  Finish();
}

bool ScorePipeline::Submit(v1::ScoreRequest request) {
  auto call = std::make_unique<Call>();
  call->request = std::move(request);
  std::unique_lock lock(mu_);
  // Results held back by a slow early call count too, so that memory stays bounded.
  const auto has_place = [this] {
    return calls_.size() < static_cast<size_t>(max_in_flight_) &&
           submitted_ - emitted_ < 8 * static_cast<uint64_t>(max_in_flight_);
  };
  changed_.wait(lock, [&] { return cancelled_ || has_place(); });
  if (cancelled_) return false;
  call->index = submitted_++;
  calls_.insert(call.get());
  lock.unlock();
  Start(call.release());
  return true;
}

void ScorePipeline::Start(Call* call) {
  auto context = std::make_unique<grpc::ClientContext>();
  PrepareContext(connection_, context.get());
  {
    std::lock_guard lock(mu_);
    call->context = std::move(context);
    if (cancelled_) call->context->TryCancel();
  }
  stub_->async()->Score(call->context.get(), &call->request, &call->response,
                        [this, call](grpc::Status status) {
                          call->status = std::move(status);
                          if (!Retry(call)) Done(call);
                        });
}

bool ScorePipeline::Retry(Call* call) {
  const grpc::StatusCode code = call->status.error_code();
  if (code != grpc::StatusCode::RESOURCE_EXHAUSTED && code != grpc::StatusCode::UNAVAILABLE) {
    return false;
  }
  if (call->attempt >= max_retries_) return false;
  const double backoff = 0.1 * static_cast<double>(1 << std::min(call->attempt, 6));
  const double delay = RetryDelay(call->status).value_or(backoff);
  std::lock_guard lock(mu_);
  if (cancelled_) return false;
  ++call->attempt;
  call->alarm = std::make_unique<grpc::Alarm>();
  call->alarm->Set(std::chrono::system_clock::now() +
                       std::chrono::microseconds(static_cast<int64_t>(delay * 1e6)),
                   [this, call](bool) { Start(call); });
  return true;
}

void ScorePipeline::Done(Call* call) {
  const std::unique_ptr<Call> owned(call);
  std::unique_lock lock(mu_);
  // The context shares the channel and must go before Finish can return: were it the channel's last
  // owner, gRPC's callback queue would be torn down on its own thread.
  std::unique_ptr<grpc::ClientContext> context = std::move(call->context);
  lock.unlock();
  context.reset();
  lock.lock();
  calls_.erase(call);
  ready_[call->index] = {call->index, std::move(call->status), std::move(call->response)};
  EmitReady(&lock);
  changed_.notify_all();
}

void ScorePipeline::EmitReady(std::unique_lock<std::mutex>* lock) {
  if (emitting_) return;  // another thread is at it and will see what was added
  emitting_ = true;
  while (!ready_.empty() && ready_.begin()->first == emitted_) {
    auto node = ready_.extract(ready_.begin());
    lock->unlock();
    emit_(node.mapped());
    lock->lock();
    ++emitted_;
  }
  emitting_ = false;
}

void ScorePipeline::Finish() {
  std::unique_lock lock(mu_);
  changed_.wait(lock, [this] { return calls_.empty() && !emitting_ && emitted_ == submitted_; });
}

void ScorePipeline::Cancel() {
  std::lock_guard lock(mu_);
  cancelled_ = true;
  for (Call* call : calls_) {
    if (call->context != nullptr) call->context->TryCancel();
    if (call->alarm != nullptr) call->alarm->Cancel();
  }
  changed_.notify_all();
}

}  // namespace hgrn2::client
