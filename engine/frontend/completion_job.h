// One completion request on its way: receives tokens of its prompts' engine requests, makes text of
// them on one worker and hands deltas to the handler.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "engine/frontend/choice_text.h"
#include "engine/frontend/frontend.h"
#include "engine/frontend/worker_pool.h"

namespace hgrn2 {

class CompletionJob final : public RequestControl,
                            public std::enable_shared_from_this<CompletionJob> {
 public:
  struct Environment {
    Engine* engine;
    const Tokenizer* tokenizer;  // may be null
    WorkerPool* workers;
    size_t worker;
    std::vector<int32_t> eos_token_ids;
  };

  CompletionJob(Environment environment, CompletionRequest request,
                std::shared_ptr<CompletionHandler> handler);

  // Submits all prompts or none. On error the handler is never called.
  absl::Status Submit(std::vector<EngineRequest> requests);
  void Cancel() override;

 private:
  class Sink;
  struct Choice {
    explicit Choice(StopStringMatcher matcher) : matcher(std::move(matcher)) {}
    StopStringMatcher matcher;
    std::optional<IncrementalDetokenizer> detokenizer;
    int32_t num_tokens = 0;
    bool closed = false;
  };
  struct Prompt {
    std::vector<int32_t> ids;
    std::vector<int32_t> stop_token_ids;
    RequestHandle handle = 0;
    bool started = false;
    std::vector<Choice> choices;
  };

  // On the worker. WaitUntilSubmitted is false if the submission failed.
  bool WaitUntilSubmitted();
  void TakePromptScores(size_t prompt, std::vector<TokenScore> scores);
  void TakeToken(size_t prompt, int32_t choice, TokenScore token);
  void TakeChoiceDone(size_t prompt, int32_t choice, FinishReason reason, int32_t stop_token);
  void TakeDone(size_t prompt, const absl::Status& status, const Usage& usage,
                const Timing& timing);
  // Sends what comes before the first token: the echo and the prompt's scores.
  void Start(size_t prompt, std::vector<TokenScore> scores);
  std::string PromptText(size_t prompt) const;
  TokenInfo Info(TokenScore score) const;
  int32_t Index(size_t prompt, int32_t choice) const;

  const Environment environment_;
  const CompletionRequest request_;
  std::shared_ptr<CompletionHandler> handler_;  // worker only; released after OnDone

  // Worker only, once submitted.
  std::vector<Prompt> prompts_;
  size_t prompts_left_ = 0;
  absl::Status status_;
  Usage usage_;
  Timing timing_;

  enum class State { kSubmitting, kSubmitted, kFailed };
  Mutex mu_;
  CondVar submitted_;
  State state_ ABSL_GUARDED_BY(mu_) = State::kSubmitting;
  std::vector<RequestHandle> handles_ ABSL_GUARDED_BY(mu_);
};

// A TokenScore with the bytes of its tokens. `tokenizer` may be null.
TokenInfo MakeTokenInfo(const Tokenizer* tokenizer, TokenScore score);

}  // namespace hgrn2
