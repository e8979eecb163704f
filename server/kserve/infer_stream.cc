#include "server/kserve/infer_stream.h"

#include <utility>
#include <vector>

#include "base/status.h"
#include "server/convert.h"
#include "server/grpc_access.h"
#include "server/grpc_status.h"
#include "server/kserve/infer_call.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

// "INVALID_ARGUMENT: temperature: must be ...": all that the protocol has room for.
std::string ErrorMessage(const absl::Status& status) {
  return fmt::format("{}: {}", CodeName(status.code()), ToGrpcStatus(status).error_message());
}

}  // namespace

// One request on its way.
class InferStream::Request final : public CompletionHandler {
 public:
  Request(std::shared_ptr<InferStream> stream, uint64_t key)
      : stream_(std::move(stream)), key_(key), record_(stream_->context_, "ModelStreamInfer") {}

  absl::Status Submit(InferRequest request, std::shared_ptr<Request> self) {
    const ServiceContext& context = stream_->context_;
    CompletionRequest& completion = request.completion;
    completion.deadline = InferDeadline(*stream_->call_, request, *context.clock);
    if (completion.request_id.empty()) completion.request_id = MakeRequestId();
    streaming_ = request.stream.value_or(true);
    unfinished_ = request.shape.batch;
    record_.SetDeadline(completion.deadline);
    record_.SetTrace(*stream_->call_);
    record_.SetRequest(completion.request_id, completion.user);
    auto control = context.frontend->Generate(std::move(completion), std::move(self));
    if (control.ok()) {
      control_.Hold(*std::move(control));
    } else {
      record_.Done(control.status());
    }
    return control.status();
  }

  void OnDelta(ChoiceDelta delta) override {
    if (overflow_) return;
    if (delta.finish_reason.has_value()) --unfinished_;
    overflow_ = !stream_->Add(key_, std::move(delta));
    if (overflow_) {
      stream_->context_.metrics->OnSlowReader();
      control_.Cancel();
    }
  }
  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override {
    control_.Release();
    absl::Status end_status = status;
    if (overflow_) {
      end_status = NoRetry(
          MakeStatus(absl::StatusCode::kResourceExhausted,
                     "the client reads too slowly: more than {} bytes of output were unread "
                     "(stream-buffer-bytes)",
                     stream_->context_.stream_buffer_bytes));
    }
    record_.Done(end_status, usage, timing);
    stream_->End(key_, end_status, usage);
  }

  // Deltas are to be written as they come, and this one is not the last.
  bool WritesNow() const { return streaming_ && unfinished_ > 0; }
  void Cancel() {
    if (!record_.AtDeadline()) control_.Cancel();
  }

 private:
  const std::shared_ptr<InferStream> stream_;
  const uint64_t key_;
  CallRecord record_;
  ControlHolder control_;
  bool streaming_ = true;   // set before the first delta
  bool overflow_ = false;   // handler's calls only
  int32_t unfinished_ = 1;  // handler's calls only: prompts that go on
};

InferStream::Reactor* InferStream::Start(const ServiceContext& context,
                                         grpc::CallbackServerContext* call) {
  auto stream = std::make_shared<InferStream>(context, call);
  stream->self_ = stream;
  const absl::Status access = CheckApiKey(context.api_keys, *call);
  if (access.ok()) {
    stream->StartRead(&stream->reading_);
  } else {
    CallRecord(context, "ModelStreamInfer").Done(access);
    MutexLock lock(&stream->mu_);
    stream->discard_ = stream->finishing_ = true;
    stream->Finish(ToGrpcStatus(access));
  }
  return stream.get();
}

void InferStream::OnReadDone(bool ok) {
  if (!ok) {
    {
      MutexLock lock(&mu_);
      reads_done_ = true;
    }
    return Pump();
  }
  Handle();
  reading_.Clear();
  StartRead(&reading_);
}

void InferStream::Handle() {
  const std::string id = reading_.id();
  absl::StatusOr<InferRequest> native = ToNative(reading_);
  if (!native.ok()) {
    CallRecord(context_, "ModelStreamInfer").Done(native.status());
    return Refuse(id, native.status());
  }
  std::shared_ptr<Request> request;
  uint64_t key;
  {
    MutexLock lock(&mu_);
    if (discard_) return;
    if (!lease_.has_value()) lease_.emplace(context_.active_calls);
    key = ++next_key_;
    request = std::make_shared<Request>(shared_from_this(), key);
    requests_[key] = request;
    Pending& pending = pending_[key];
    pending.shape = native->shape;
    pending.results.resize(native->shape.batch);
  }
  const absl::Status status = request->Submit(*std::move(native), request);
  if (!status.ok()) return End(key, status, {});
  bool cancelled;
  {
    MutexLock lock(&mu_);
    cancelled = discard_;
  }
  // OnCancel may have come before the request had anything to cancel.
  if (cancelled) request->Cancel();
}

void InferStream::Refuse(const std::string& id, const absl::Status& status) {
  {
    MutexLock lock(&mu_);
    if (discard_) return;
    if (!lease_.has_value()) lease_.emplace(context_.active_calls);
    Pending& pending = pending_[++next_key_];
    pending.shape.id = SafeUtf8(id, 256);
    pending.ended = true;
    pending.status = status;
  }
  Pump();
}

bool InferStream::Add(uint64_t key, ChoiceDelta delta) {
  {
    MutexLock lock(&mu_);
    if (discard_) return true;
    const int64_t bytes = ApproximateBytes(delta);
    if (pending_bytes_ > 0 && pending_bytes_ + bytes > context_.stream_buffer_bytes) return false;
    Pending& pending = pending_[key];
    pending_bytes_ += bytes;
    pending.bytes += bytes;
    InferResult& result = pending.results[delta.index];
    result.text += delta.text;
    if (delta.finish_reason.has_value()) {
      result.finish_reason = FinishReasonName(*delta.finish_reason);
    }
    pending.any = true;
    pending.held = !requests_[key]->WritesNow();
  }
  Pump();
  return true;
}

void InferStream::End(uint64_t key, const absl::Status& status, const Usage& usage) {
  std::shared_ptr<Request> request;  // destroyed outside the lock
  {
    MutexLock lock(&mu_);
    const auto found = requests_.find(key);
    if (found != requests_.end()) {
      request = std::move(found->second);
      requests_.erase(found);
    }
    if (discard_) {
      pending_.erase(key);
    } else {
      Pending& pending = pending_[key];
      pending.ended = true;
      pending.status = status;
      pending.usage = usage;
    }
  }
  Pump();
}

bool InferStream::TakeNext() {
  // Round robin, beginning after the request that was written last.
  auto at = pending_.upper_bound(last_written_);
  for (size_t i = 0; i < pending_.size(); ++i, ++at) {
    if (at == pending_.end()) at = pending_.begin();
    Pending& pending = at->second;
    if (!pending.ended && (!pending.any || pending.held)) continue;
    last_written_ = at->first;
    pending_bytes_ -= pending.bytes;
    writing_.Clear();
    inference::ModelInferResponse* const response = writing_.mutable_infer_response();
    if (!pending.status.ok()) {
      writing_.set_error_message(ErrorMessage(pending.status));
      response->set_id(pending.shape.id);
    } else {
      ToProto(pending.shape, std::move(pending.results), response);
      if (pending.ended) SetUsage(pending.usage, response);
    }
    SetFinalResponse(pending.ended, response);
    if (pending.ended) {
      pending_.erase(at);
    } else {
      pending.results.assign(pending.shape.batch, {});
      pending.bytes = 0;
      pending.any = false;
    }
    return true;
  }
  return false;
}

void InferStream::Pump() {
  bool write = false;
  {
    MutexLock lock(&mu_);
    if (write_in_flight_ || finishing_) return;
    write = !discard_ && TakeNext();
    const bool idle = !write && requests_.empty() && (discard_ || pending_.empty());
    if (write) {
      write_in_flight_ = true;
    } else if (idle && reads_done_) {
      finishing_ = true;
    } else {
      if (idle) lease_.reset();
      return;
    }
  }
  if (write) {
    StartWrite(&writing_);
  } else {
    Finish(grpc::Status::OK);
  }
}

void InferStream::OnWriteDone(bool ok) {
  {
    MutexLock lock(&mu_);
    write_in_flight_ = false;
    if (!ok) discard_ = true;
  }
  if (!ok) CancelAll();
  Pump();
}

void InferStream::OnCancel() {
  {
    MutexLock lock(&mu_);
    discard_ = true;
    pending_.clear();
  }
  CancelAll();
}

void InferStream::CancelAll() {
  std::vector<std::shared_ptr<Request>> requests;
  {
    MutexLock lock(&mu_);
    for (const auto& [_, request] : requests_) requests.push_back(request);
  }
  for (const std::shared_ptr<Request>& request : requests) request->Cancel();
}

void InferStream::OnDone() {
  {
    MutexLock lock(&mu_);
    lease_.reset();
  }
  self_.reset();
}

}  // namespace hgrn2
