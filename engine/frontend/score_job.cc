#include "engine/frontend/score_job.h"

#include <utility>

#include "base/status.h"
#include "engine/frontend/completion_job.h"

namespace hgrn2 {
namespace {

class ScoreControl final : public RequestControl {
 public:
  ScoreControl(Engine& engine, RequestHandle handle) : engine_(engine), handle_(handle) {}
  void Cancel() override { engine_.Cancel(handle_); }

 private:
  Engine& engine_;
  const RequestHandle handle_;
};

class ScoreSink final : public TokenSink {
 public:
  ScoreSink(const Tokenizer* tokenizer, WorkerPool& workers, size_t worker, size_t count,
            std::shared_ptr<ScoreHandler> handler)
      : tokenizer_(tokenizer),
        workers_(workers),
        worker_(worker),
        scores_(count),
        handler_(std::move(handler)) {}

  void OnContinuationScores(int32_t continuation, std::vector<TokenScore> scores) override {
    scored_tokens_ += static_cast<int32_t>(scores.size());
    scores_[continuation] = std::move(scores);
  }

  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override {
    Usage total = usage;
    total.prompt_tokens += scored_tokens_;
    workers_.Post(worker_, [tokenizer = tokenizer_, scores = std::move(scores_),
                            handler = std::move(handler_), status, total]() mutable {
      std::vector<ContinuationResult> results;
      if (status.ok()) {
        for (auto& one : scores) results.push_back(Summarize(tokenizer, std::move(one)));
      }
      handler->OnDone(status, std::move(results), total);
    });
  }

 private:
  static ContinuationResult Summarize(const Tokenizer* tokenizer, std::vector<TokenScore> scores) {
    ContinuationResult result;
    for (TokenScore& score : scores) {
      result.sum_logprob += score.logprob;
      result.is_greedy = result.is_greedy && score.rank == 1;
      result.tokens.push_back(MakeTokenInfo(tokenizer, std::move(score)));
    }
    return result;
  }

  const Tokenizer* const tokenizer_;
  WorkerPool& workers_;
  const size_t worker_;
  std::vector<std::vector<TokenScore>> scores_;
  int32_t scored_tokens_ = 0;
  std::shared_ptr<ScoreHandler> handler_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<RequestControl>> SubmitScoreJob(
    Engine& engine, const Tokenizer* tokenizer, WorkerPool& workers, size_t worker,
    EngineRequest request, std::shared_ptr<ScoreHandler> handler) {
  request.sink = std::make_shared<ScoreSink>(tokenizer, workers, worker,
                                             request.continuations.size(), std::move(handler));
  ASSIGN_OR_RETURN(const RequestHandle handle, engine.Submit(std::move(request)));
  return std::shared_ptr<RequestControl>(std::make_shared<ScoreControl>(engine, handle));
}

}  // namespace hgrn2
