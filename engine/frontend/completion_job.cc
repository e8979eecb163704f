#include "engine/frontend/completion_job.h"

#include <algorithm>
#include <utility>

namespace hgrn2 {

TokenInfo MakeTokenInfo(const Tokenizer* tokenizer, TokenScore score) {
  TokenInfo info;
  if (tokenizer != nullptr) {
    info.bytes = tokenizer->TokenBytes(score.token_id);
    for (const TopToken& top : score.top) {
      info.top_bytes.emplace_back(tokenizer->TokenBytes(top.token_id));
    }
  } else {
    info.top_bytes.resize(score.top.size());
  }
  info.score = std::move(score);
  return info;
}

// Engine thread: moves every event to the job's worker. Keeps the job alive.
class CompletionJob::Sink final : public TokenSink {
 public:
  Sink(std::shared_ptr<CompletionJob> job, size_t prompt) : job_(std::move(job)), prompt_(prompt) {}

  void OnPromptScores(std::vector<TokenScore> scores) override {
    Post([scores = std::move(scores)](CompletionJob& job, size_t prompt) mutable {
      job.TakePromptScores(prompt, std::move(scores));
    });
  }
  void OnToken(int32_t choice, TokenScore token) override {
    Post([choice, token = std::move(token)](CompletionJob& job, size_t prompt) mutable {
      job.TakeToken(prompt, choice, std::move(token));
    });
  }
  void OnChoiceDone(int32_t choice, FinishReason reason, int32_t stop_token) override {
    Post([=](CompletionJob& job, size_t prompt) {
      job.TakeChoiceDone(prompt, choice, reason, stop_token);
    });
  }
  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override {
    Post([=](CompletionJob& job, size_t prompt) { job.TakeDone(prompt, status, usage, timing); });
  }

 private:
  template <typename Event>
  void Post(Event event) {
    job_->environment_.workers->Post(
        job_->environment_.worker,
        [job = job_, prompt = prompt_, event = std::move(event)]() mutable {
          if (job->WaitUntilSubmitted()) event(*job, prompt);
        });
  }

  const std::shared_ptr<CompletionJob> job_;
  const size_t prompt_;
};

CompletionJob::CompletionJob(Environment environment, CompletionRequest request,
                             std::shared_ptr<CompletionHandler> handler)
    : environment_(std::move(environment)),
      request_(std::move(request)),
      handler_(std::move(handler)) {}

absl::Status CompletionJob::Submit(std::vector<EngineRequest> requests) {
  absl::Status status;
  std::vector<RequestHandle> handles;
  prompts_left_ = requests.size();
  prompts_.resize(requests.size());
  for (size_t p = 0; p < requests.size() && status.ok(); ++p) {
    Prompt& prompt = prompts_[p];
    prompt.ids = requests[p].prompt;
    prompt.stop_token_ids = requests[p].stop_token_ids;
    std::sort(prompt.stop_token_ids.begin(), prompt.stop_token_ids.end());
    requests[p].sink = std::make_shared<Sink>(shared_from_this(), p);
    auto handle = environment_.engine->Submit(std::move(requests[p]));
    status = handle.status();
    if (handle.ok()) handles.push_back(prompt.handle = *handle);
  }
  {
    MutexLock lock(&mu_);
    handles_ = handles;
    state_ = status.ok() ? State::kSubmitted : State::kFailed;
  }
  submitted_.NotifyAll();
  if (!status.ok()) {
    for (const RequestHandle handle : handles) environment_.engine->Cancel(handle);
  }
  return status;
}

void CompletionJob::Cancel() {
  std::vector<RequestHandle> handles;
  {
    MutexLock lock(&mu_);
    handles = handles_;
  }
  for (const RequestHandle handle : handles) environment_.engine->Cancel(handle);
}

bool CompletionJob::WaitUntilSubmitted() {
  MutexLock lock(&mu_);
  while (state_ == State::kSubmitting) submitted_.Wait(&mu_);
  return state_ == State::kSubmitted;
}

int32_t CompletionJob::Index(size_t prompt, int32_t choice) const {
  return static_cast<int32_t>(prompt) * request_.sampling.n + choice;
}

TokenInfo CompletionJob::Info(TokenScore score) const {
  return MakeTokenInfo(environment_.tokenizer, std::move(score));
}

std::string CompletionJob::PromptText(size_t prompt) const {
  if (const auto* text = std::get_if<std::string>(&request_.prompts[prompt])) return *text;
  if (environment_.tokenizer == nullptr) return {};
  return environment_.tokenizer->Decode(prompts_[prompt].ids,
                                        request_.sampling.skip_special_tokens);
}

void CompletionJob::Start(size_t p, std::vector<TokenScore> scores) {
  Prompt& prompt = prompts_[p];
  if (std::exchange(prompt.started, true)) return;
  for (int32_t c = 0; c < request_.sampling.n; ++c) {
    StopStringMatcher matcher(request_.sampling.stop, request_.sampling.include_stop_str_in_output);
    prompt.choices.emplace_back(std::move(matcher));
    if (environment_.tokenizer != nullptr) {
      prompt.choices.back().detokenizer.emplace(*environment_.tokenizer,
                                                request_.sampling.skip_special_tokens);
      prompt.choices.back().detokenizer->Prime(prompt.ids);
    }
    ChoiceDelta delta;
    delta.index = Index(p, c);
    if (request_.echo) {
      delta.text = PromptText(p);
      delta.token_ids = prompt.ids;
    }
    if (c == 0 && (request_.sampling.prompt_logprobs >= 0 ||
                   (request_.echo && request_.sampling.logprobs >= 0))) {
      TokenScore unpredicted;
      unpredicted.token_id = prompt.ids[0];
      TokenInfo first = Info(std::move(unpredicted));
      first.has_logprob = false;
      delta.prompt_logprobs.push_back(std::move(first));
      for (TokenScore& score : scores) delta.prompt_logprobs.push_back(Info(std::move(score)));
    }
    if (request_.echo || !delta.prompt_logprobs.empty()) handler_->OnDelta(std::move(delta));
  }
}

void CompletionJob::TakePromptScores(size_t prompt, std::vector<TokenScore> scores) {
  Start(prompt, std::move(scores));
}

void CompletionJob::TakeToken(size_t p, int32_t c, TokenScore token) {
  Start(p, {});
  Prompt& prompt = prompts_[p];
  Choice& choice = prompt.choices[c];
  if (choice.closed) return;  // sampled before the engine heard of the stop string
  choice.num_tokens += 1;
  usage_.completion_tokens += 1;
  ChoiceDelta delta;
  delta.index = Index(p, c);
  delta.token_ids.push_back(token.token_id);
  const bool stop_token = std::binary_search(prompt.stop_token_ids.begin(),
                                             prompt.stop_token_ids.end(), token.token_id);
  if (choice.detokenizer.has_value() &&
      (!stop_token || request_.sampling.include_stop_str_in_output)) {
    const std::string text = choice.detokenizer->Append(token.token_id);
    // Stop strings count from min_tokens on, as stop tokens do.
    delta.text =
        choice.num_tokens > request_.sampling.min_tokens ? choice.matcher.Append(text) : text;
  }
  if (request_.sampling.logprobs >= 0) delta.logprobs.push_back(Info(std::move(token)));
  if (choice.matcher.matched().has_value()) {
    choice.closed = true;
    delta.finish_reason = FinishReason::kStop;
    delta.stop_reason = *choice.matcher.matched();
    environment_.engine->StopChoice(prompt.handle, c);
  }
  handler_->OnDelta(std::move(delta));
}

void CompletionJob::TakeChoiceDone(size_t p, int32_t c, FinishReason reason, int32_t stop_token) {
  Start(p, {});
  Choice& choice = prompts_[p].choices[c];
  if (std::exchange(choice.closed, true)) return;
  ChoiceDelta delta;
  delta.index = Index(p, c);
  if (choice.detokenizer.has_value()) {
    delta.text = choice.matcher.Append(choice.detokenizer->Flush());
    if (!choice.matcher.matched().has_value()) delta.text += choice.matcher.Flush();
  }
  delta.finish_reason = reason;
  const auto& eos = environment_.eos_token_ids;
  if (choice.matcher.matched().has_value()) {
    delta.finish_reason = FinishReason::kStop;
    delta.stop_reason = *choice.matcher.matched();
  } else if (stop_token >= 0 && std::find(eos.begin(), eos.end(), stop_token) == eos.end()) {
    delta.stop_reason = std::to_string(stop_token);
  }
  handler_->OnDelta(std::move(delta));
}

void CompletionJob::TakeDone(size_t p, const absl::Status& status, const Usage& usage,
                             const Timing& timing) {
  usage_.prompt_tokens += usage.prompt_tokens;
  usage_.cached_tokens += usage.cached_tokens;
  timing_.queue = std::max(timing_.queue, timing.queue);
  timing_.prefill = std::max(timing_.prefill, timing.prefill);
  timing_.decode = std::max(timing_.decode, timing.decode);
  if (!status.ok() && status_.ok()) {
    status_ = status;
    // One error ends the whole request.
    for (const Prompt& prompt : prompts_) environment_.engine->Cancel(prompt.handle);
  }
  if (--prompts_left_ > 0) return;
  handler_->OnDone(status_, usage_, timing_);
  handler_.reset();
}

}  // namespace hgrn2
