// What the engine is asked to do, and what it answers with. Token ids only: text belongs to
// engine/frontend.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "engine/backend/backend.h"

namespace hgrn2 {

enum class FinishReason { kStop, kLength, kAbort };

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t cached_tokens = 0;  // prompt tokens that needed no prefill
};

// Seconds. queue: submit to first schedule; prefill: to the first token; decode: to the last.
struct Timing {
  double queue = 0;
  double prefill = 0;
  double decode = 0;
};

// Receives a request's results on the engine thread: must return at once and never block.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // Log-probabilities of the prompt's tokens from the second on; at most once, before any token.
  virtual void OnPromptScores(std::vector<TokenScore> scores) {}
  // One generated token of a choice.
  virtual void OnToken(int32_t choice, TokenScore token) {}
  // No more tokens of this choice. stop_token: the token that ended it (reported by OnToken before,
  // if it was an eos or stop token), else -1.
  virtual void OnChoiceDone(int32_t choice, FinishReason reason, int32_t stop_token) {}
  // Scores of one continuation's tokens, in order; any order among continuations.
  virtual void OnContinuationScores(int32_t continuation, std::vector<TokenScore> scores) {}
  // Exactly once, last. OK, or CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE (drain), INTERNAL.
  virtual void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) = 0;
};

// Valid by the caller's promise (engine/frontend validates): non-empty prompt, ids in the
// vocabulary, parameters in range.
struct EngineRequest {
  std::string id;  // for logs
  std::vector<int32_t> prompt;

  // Generation. Choice c > 0 draws with ChoiceSeed(seed, c).
  int32_t num_choices = 1;
  int32_t max_tokens = 16;  // >= 1
  uint32_t min_tokens = 0;
  SamplingScalars sampling;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;
  std::vector<std::vector<int32_t>> bad_words;  // token sequences, none empty
  std::vector<int32_t> stop_token_ids;          // eos tokens included unless ignore_eos
  int32_t prompt_logprobs = -1;                 // -1: none

  // Scoring, if not empty: no choice is generated; each continuation follows the prompt.
  std::vector<std::vector<int32_t>> continuations;
  int32_t score_top_n = 0;

  int32_t priority = 0;  // lower first
  TimePoint deadline = kInfiniteFuture;
  std::shared_ptr<TokenSink> sink;
};

// Seed of choice c: the request's own for c = 0.
uint64_t ChoiceSeed(uint64_t seed, int32_t choice);

}  // namespace hgrn2
