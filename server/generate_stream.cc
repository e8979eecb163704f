#include "server/generate_stream.h"

#include <utility>

#include "base/status.h"
#include "server/convert.h"
#include "server/generate_acceptor.h"
#include "server/grpc_access.h"
#include "server/grpc_status.h"

namespace hgrn2 {
namespace {

void* Tag(CompletionEvent& event) { return &event; }

}  // namespace

void GenerateStream::Request(InferenceService* service, grpc::CompletionQueue* queue,
                             grpc::ServerCompletionQueue* accepted) {
  {
    MutexLock lock(&mu_);
    self_ = shared_from_this();
  }
  call_.AsyncNotifyWhenDone(Tag(call_done_event_));
  service->RequestGenerate(&call_, &request_, &writer_, queue, accepted, Tag(accepted_));
}

std::optional<size_t> GenerateStream::worker() const { return acceptor_.WorkerOf(queue_); }

void GenerateStream::OnAccepted(bool ok) {
  if (!ok) {  // the server shuts down: there is no call
    {
      MutexLock lock(&mu_);
      self_.reset();
    }
    return acceptor_.OnStreamDone();
  }
  acceptor_.RequestCall(queue_);
  lease_.emplace(context_.active_calls);
  connection_ = acceptor_.Join(call_.peer());
  record_.Start();
  Submit();
  {
    MutexLock lock(&mu_);
    submitted_ = true;
  }
  Settle();
}

void GenerateStream::Submit() {
  record_.SetTrace(call_);
  absl::Status access = CheckApiKey(context_.api_keys, call_);
  if (!access.ok()) return End(access);
  absl::StatusOr<CompletionRequest> native = ToNative(std::move(request_));
  if (!native.ok()) return End(native.status());
  native->deadline = DeadlineOf(call_, *context_.clock);
  if (native->request_id.empty()) native->request_id = MakeRequestId();
  record_.SetDeadline(native->deadline);
  record_.SetRequest(native->request_id, native->user);
  auto control = context_.frontend->Generate(*std::move(native), shared_from_this());
  if (!control.ok()) return End(control.status());
  control_.Hold(*std::move(control));
}

void GenerateStream::OnDelta(ChoiceDelta delta) {
  bool overflows = false;
  {
    MutexLock lock(&mu_);
    if (discard_) return;
    const int64_t bytes = ApproximateBytes(delta);
    // A single delta is always taken, so that a large one cannot be mistaken for a slow reader.
    overflows = pending_bytes_ > 0 && pending_bytes_ + bytes > context_.stream_buffer_bytes;
    if (overflows) {
      overflow_ = discard_ = true;
      pending_.Clear();
    } else {
      pending_bytes_ += bytes;
      Merge(std::move(delta));
    }
  }
  if (overflows) {
    context_.metrics->OnSlowReader();
    control_.Cancel();  // OnDone follows and ends the call
  } else {
    Pump();
  }
}

void GenerateStream::Merge(ChoiceDelta delta) {
  const auto [at, is_new] = position_.try_emplace(delta.index, pending_.choices_size());
  v1::ChoiceDelta* const out =
      is_new ? pending_.add_choices() : pending_.mutable_choices(at->second);
  AppendTo(std::move(delta), out);
}

void GenerateStream::OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) {
  control_.Release();
  absl::Status end_status = status;
  {
    MutexLock lock(&mu_);
    if (overflow_) {
      end_status = NoRetry(MakeStatus(absl::StatusCode::kResourceExhausted,
                                      "the client reads too slowly: more than {} bytes of output "
                                      "were unread (stream-buffer-bytes)",
                                      context_.stream_buffer_bytes));
    } else if (status.ok()) {
      ToProto(usage, pending_.mutable_usage());
      ToProto(timing, pending_.mutable_timing());
    }
  }
  End(end_status, usage, timing);
}

void GenerateStream::End(const absl::Status& status, const Usage& usage, const Timing& timing) {
  record_.Done(status, usage, timing);
  {
    MutexLock lock(&mu_);
    ended_ = true;
    end_status_ = status;
  }
  Pump();
}

void GenerateStream::Pump() {
  bool write = false;
  bool finish = false;
  absl::Status end_status;
  {
    MutexLock lock(&mu_);
    if (write_in_flight_ || finishing_) return;
    write = !discard_ && (pending_.choices_size() > 0 || pending_.has_usage());
    // An error status goes out on its own, after the text that came before it.
    finish = ended_ && (!write || end_status_.ok());
    if (!write && !finish) return;
    if (write) {
      writing_.Clear();
      writing_.Swap(&pending_);
      position_.clear();
      pending_bytes_ = 0;
      write_in_flight_ = true;
    }
    finishing_ = finish;
    end_status = end_status_;
  }
  if (write) {
    writing_.set_request_id(record_.id());
    writing_.set_model(context_.model.name());
  }
  PacketBatch::WillWrite(connection_);
  if (write && finish) {
    writer_.WriteAndFinish(writing_, grpc::WriteOptions(), grpc::Status::OK, Tag(finished_event_));
  } else if (write) {
    writer_.Write(writing_, Tag(written_));
  } else {
    writer_.Finish(ToGrpcStatus(end_status), Tag(finished_event_));
  }
}

void GenerateStream::OnWritten(bool ok) {
  {
    MutexLock lock(&mu_);
    write_in_flight_ = false;
    if (!ok) discard_ = true;
  }
  // A write also fails because the deadline has passed: then the engine ends the request as such.
  if (!ok && !record_.AtDeadline()) control_.Cancel();
  Pump();
}

void GenerateStream::OnFinished(bool) {
  {
    MutexLock lock(&mu_);
    finished_ = true;
  }
  Settle();
}

void GenerateStream::OnCallDone(bool) {
  {
    MutexLock lock(&mu_);
    call_done_ = true;
  }
  Settle();
}

void GenerateStream::Settle() {
  std::shared_ptr<GenerateStream> self;  // let go of outside the lock
  bool cancelled = false;
  {
    MutexLock lock(&mu_);
    if (!submitted_ || !call_done_) return;
    cancelled = call_.IsCancelled();
    if (cancelled) {
      discard_ = true;
      pending_.Clear();
    }
    if (finished_) self = std::move(self_);
  }
  if (cancelled && !record_.AtDeadline()) control_.Cancel();
  if (self == nullptr) return;
  lease_.reset();
  acceptor_.OnStreamDone();
}

}  // namespace hgrn2
