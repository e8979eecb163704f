#include "server/openai/generation_call.h"

#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/convert.h"
#include "server/openai/api_error.h"
#include "server/request_log.h"

namespace hgrn2 {
namespace {

// What whole and streamed answers share: the request's control, its log line and span, and the
// prompt's part of the deltas.
class Call : public CompletionHandler,
             public HttpStreamListener,
             public std::enable_shared_from_this<Call> {
 public:
  Call(const GenerationContext& context, const CompletionRequest& request, GenerationTask task,
       std::shared_ptr<HttpResponder> responder)
      : context_(context),
        task_(std::move(task)),
        responder_(std::move(responder)),
        num_choices_(request.sampling.n),
        id_(request.request_id),
        user_(request.user),
        started_(context.clock->Now()) {}

  void Submit(CompletionRequest request) {
    responder_->Listen(shared_from_this());
    auto control = context_.frontend->Generate(std::move(request), shared_from_this());
    if (control.ok()) return control_.Hold(*std::move(control));
    Report(control.status(), {}, {});
    responder_->Send(ToHttpError(control.status(), task_.prompt_field));
  }

 protected:
  // Takes out of `delta` what belongs to the prompt, so that what is left can be merged, and counts
  // the rest. Worker thread.
  void Account(ChoiceDelta* delta) {
    if (task_.echo && first_of_choice_.try_emplace(delta->index, true).second) {
      delta->token_ids.clear();  // the prompt's
      ShareEchoedLogprobs(delta);
    } else if (task_.prompt_only) {
      delta->text.clear();
      delta->token_ids.clear();
      delta->logprobs.clear();
    }
    usage_.completion_tokens += static_cast<int32_t>(delta->token_ids.size());
    if (!delta->token_ids.empty() || delta->finish_reason.has_value()) CountPrompt(*delta);
  }

  void Report(const absl::Status& status, const Usage& usage, const Timing& timing) const {
    const int http_status = HttpStatusOf(status);
    const double seconds = ToSeconds(context_.clock->Now() - started_);
    const RequestOutcome outcome{status, usage, timing, seconds, user_, task_.trace};
    if (!task_.trace.span_id.empty()) {
      context_.spans->Add(MakeHttpSpan(task_.route, id_, http_status, outcome));
    }
    if (!spdlog::should_log(spdlog::level::info)) return;
    LogRecord record("http");
    record.Add("path", task_.route).Add("request_id", id_).Add("status", http_status);
    AddOutcome(outcome, &record);
    record.Write(spdlog::level::info);
  }

  const GenerationContext& context_;
  const GenerationTask task_;
  const std::shared_ptr<HttpResponder> responder_;
  const int32_t num_choices_;
  ControlHolder control_;
  Usage usage_;  // so far; worker thread

 private:
  // With echo every choice shows the prompt's log-probabilities; the frontend reports them once.
  void ShareEchoedLogprobs(ChoiceDelta* delta) {
    if (num_choices_ == 1) return;
    if (delta->index % num_choices_ == 0) {
      echoed_ = delta->prompt_logprobs;
    } else if (delta->prompt_logprobs.empty()) {
      delta->prompt_logprobs = echoed_;
    }
  }
  void CountPrompt(const ChoiceDelta& delta) {
    const size_t prompt = static_cast<size_t>(delta.index / num_choices_);
    if (prompt >= task_.prompt_tokens.size()) return;
    if (counted_prompts_.size() < task_.prompt_tokens.size()) {
      counted_prompts_.resize(task_.prompt_tokens.size());
    }
    if (counted_prompts_[prompt]) return;
    counted_prompts_[prompt] = true;
    usage_.prompt_tokens += task_.prompt_tokens[prompt];
  }

  const std::string id_;
  const std::string user_;
  const TimePoint started_;
  std::unordered_map<int32_t, bool> first_of_choice_;
  std::vector<TokenInfo> echoed_;
  std::vector<bool> counted_prompts_;
};

class WholeCall final : public Call {
 public:
  using Call::Call;

  void OnDelta(ChoiceDelta delta) override {
    if (too_large_) return;
    Account(&delta);
    bytes_ += ApproximateBytes(delta);
    if (bytes_ > context_.max_response_bytes) {
      too_large_ = true;
      choices_.clear();
      return control_.Cancel();
    }
    if (choices_.size() <= static_cast<size_t>(delta.index)) choices_.resize(delta.index + 1);
    MergeDelta(std::move(delta), &choices_[delta.index]);
  }

  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override {
    control_.Release();
    const absl::Status end = too_large_ ? TooLarge() : status;
    Usage shown = usage;
    if (task_.prompt_only) shown.completion_tokens = 0;
    Report(end, shown, timing);
    if (!end.ok()) return responder_->Send(ToHttpError(end, task_.prompt_field));
    HttpResponse response;
    response.body = task_.format->Whole(std::move(choices_), shown);
    responder_->Send(std::move(response));
  }

  void OnWritten() override {}
  void OnPeerGone() override { control_.Cancel(); }

 private:
  absl::Status TooLarge() const {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "the answer is larger than {} bytes (http-max-response-bytes); ask for less, "
                      "or stream it",
                      context_.max_response_bytes);
  }

  std::vector<ChoiceDelta> choices_;  // by index
  int64_t bytes_ = 0;
  bool too_large_ = false;
};

// Deltas that come while earlier output is still on its way to the socket are merged, per choice,
// into the next event: a client that keeps up gets an event per token, a slower one (or all of them
// on a busy machine) fewer, larger ones. What is unsent is bounded; beyond the bound the request is
// cancelled.
class StreamCall final : public Call {
 public:
  using Call::Call;

  void OnDelta(ChoiceDelta delta) override {
    Account(&delta);
    bool overflows = false;
    {
      MutexLock lock(&mu_);
      if (discard_) return;
      const int64_t bytes = ApproximateBytes(delta);
      // A single delta is always taken, so that a large one cannot be mistaken for a slow reader.
      overflows = pending_bytes_ > 0 && pending_bytes_ + bytes > context_.stream_buffer_bytes;
      if (overflows) {
        overflow_ = discard_ = true;
        pending_.clear();
        position_.clear();
      } else {
        pending_bytes_ += bytes;
        pending_usage_ = usage_;
        Merge(std::move(delta));
      }
    }
    if (!overflows) return Pump();
    context_.metrics->OnSlowReader();
    control_.Cancel();  // OnDone follows and ends the answer
  }

  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override {
    control_.Release();
    {
      MutexLock lock(&mu_);
      ended_ = true;
      end_status_ = overflow_ ? TooSlow() : status;
      pending_usage_ = usage;
      if (task_.prompt_only) pending_usage_.completion_tokens = 0;
    }
    Report(overflow_ ? TooSlow() : status, usage, timing);
    Pump();
  }

  void OnWritten() override {
    {
      MutexLock lock(&mu_);
      in_flight_ = false;
    }
    Pump();
  }

  void OnPeerGone() override {
    {
      MutexLock lock(&mu_);
      discard_ = true;
      pending_.clear();
      position_.clear();
    }
    control_.Cancel();
  }

 private:
  absl::Status TooSlow() const {
    return MakeStatus(absl::StatusCode::kResourceExhausted,
                      "the client reads too slowly: more than {} bytes of output were unread "
                      "(stream-buffer-bytes)",
                      context_.stream_buffer_bytes);
  }

  void Merge(ChoiceDelta delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto [at, is_new] = position_.try_emplace(delta.index, pending_.size());
    if (is_new) {
      pending_.push_back(std::move(delta));
    } else {
      MergeDelta(std::move(delta), &pending_[at->second]);
    }
  }

  // Gives what is pending to the responder, unless it still has something: then OnWritten comes
  // back here. in_flight_ keeps others out of the part without the lock.
  void Pump() {
    std::vector<ChoiceDelta> deltas;
    Usage usage;
    absl::Status end_status;
    bool end = false;
    {
      MutexLock lock(&mu_);
      if (in_flight_ || finished_ || (pending_.empty() && !ended_)) return;
      deltas.swap(pending_);
      position_.clear();
      pending_bytes_ = 0;
      usage = pending_usage_;
      end = finished_ = ended_;
      end_status = end_status_;
      in_flight_ = true;
    }
    if (end && !end_status.ok() && !begun_ && deltas.empty()) {
      return responder_->Send(ToHttpError(end_status, task_.prompt_field));
    }
    std::string events;
    const bool first = !std::exchange(begun_, true);
    if (first) task_.format->Begin(&events);
    for (ChoiceDelta& delta : deltas) task_.format->Delta(std::move(delta), usage, &events);
    if (end && end_status.ok()) task_.format->End(usage, &events);
    if (end && !end_status.ok()) {
      task_.format->Fail(ToHttpError(end_status, task_.prompt_field).body, &events);
    }
    Send(first, std::move(events));
    if (end) responder_->Finish();
  }

  void Send(bool first, std::string events) {
    if (!first) return responder_->Write(std::move(events));
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    // Proxies must pass events on as they come.
    head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    head.body = std::move(events);
    responder_->Begin(std::move(head));
  }

  Mutex mu_;
  std::vector<ChoiceDelta> pending_ ABSL_GUARDED_BY(mu_);              // merged, not yet formatted
  std::unordered_map<int32_t, size_t> position_ ABSL_GUARDED_BY(mu_);  // choice index in pending_
  int64_t pending_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  Usage pending_usage_ ABSL_GUARDED_BY(mu_);
  bool in_flight_ ABSL_GUARDED_BY(mu_) = false;
  bool discard_ ABSL_GUARDED_BY(mu_) = false;  // client gone or too slow: output goes nowhere
  bool overflow_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;     // the frontend has reported the end
  bool finished_ ABSL_GUARDED_BY(mu_) = false;  // and it was given to the responder
  absl::Status end_status_ ABSL_GUARDED_BY(mu_);

  bool begun_ = false;  // Pump's part without the lock
};

}  // namespace

void StartGeneration(const GenerationContext& context, CompletionRequest request,
                     GenerationTask task, std::shared_ptr<HttpResponder> responder) {
  if (context.spans != nullptr) context.spans->Begin(&task.trace);
  std::shared_ptr<Call> call;
  if (task.stream) {
    call = std::make_shared<StreamCall>(context, request, std::move(task), std::move(responder));
  } else {
    call = std::make_shared<WholeCall>(context, request, std::move(task), std::move(responder));
  }
  call->Submit(std::move(request));
}

}  // namespace hgrn2
