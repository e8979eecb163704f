// The transport-free API: validates requests, turns text into tokens and tokens into text, and
// hands results to a handler on worker threads. gRPC and HTTP are thin layers over this one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "engine/frontend/worker_loop.h"
#include "engine/loader/weights.h"
#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"

namespace hgrn2 {

using PromptInput = std::variant<std::string, std::vector<int32_t>>;  // text or token ids

// Ranges and defaults: proto/hgrn2/v1/inference.proto. Unset optionals take the checkpoint's
// generation_config.json value, then the documented default.
struct SamplingRequest {
  std::optional<int32_t> max_tokens;
  int32_t min_tokens = 0;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::optional<float> repetition_penalty;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;
  std::vector<std::string> bad_words;
  std::optional<uint64_t> seed;
  int32_t n = 1;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  int32_t logprobs = -1;         // -1: none
  int32_t prompt_logprobs = -1;  // -1: none
};

struct CompletionRequest {
  std::string model;
  std::string request_id;
  std::vector<PromptInput> prompts;
  SamplingRequest sampling;
  bool echo = false;
  int32_t priority = 0;
  bool add_special_tokens = true;
  std::string user;
  std::string cache_salt;
  TimePoint deadline = kInfiniteFuture;
};

// A TokenScore with the token's bytes. has_logprob is false for a prompt's first token.
struct TokenInfo {
  TokenScore score;
  std::string bytes;
  bool has_logprob = true;
  std::vector<std::string> top_bytes;  // of score.top
};

struct ChoiceDelta {
  int32_t index = 0;
  std::string text;  // whole UTF-8 characters
  std::vector<int32_t> token_ids;
  std::vector<TokenInfo> logprobs;         // if logprobs were asked for
  std::vector<TokenInfo> prompt_logprobs;  // on the first delta of a prompt's first choice
  std::optional<FinishReason> finish_reason;
  std::string stop_reason;
};

// Called on a worker thread, the same one for all of a request. Must not block.
class CompletionHandler {
 public:
  virtual ~CompletionHandler() = default;
  // The worker to be called on, modulo their number; none: any.
  virtual std::optional<size_t> worker() const { return std::nullopt; }
  virtual void OnDelta(ChoiceDelta delta) = 0;
  // Exactly once, last.
  virtual void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) = 0;
};

struct ScoreInput {
  std::string model;
  std::string request_id;
  std::optional<PromptInput> context;
  std::vector<PromptInput> continuations;
  int32_t top_logprobs = 0;
  int32_t priority = 0;
  bool add_special_tokens = true;
  TimePoint deadline = kInfiniteFuture;
};

struct ContinuationResult {
  std::vector<TokenInfo> tokens;
  double sum_logprob = 0;
  bool is_greedy = true;
};

class ScoreHandler {
 public:
  virtual ~ScoreHandler() = default;
  // Exactly once, on a worker thread.
  virtual void OnDone(const absl::Status& status, std::vector<ContinuationResult> results,
                      const Usage& usage) = 0;
};

// Names a submitted request (which may be several engine requests). Cancel is idempotent.
class RequestControl {
 public:
  virtual ~RequestControl() = default;
  virtual void Cancel() = 0;
};

struct FrontendOptions {
  std::string served_model_name;
  std::vector<std::unique_ptr<WorkerLoop>> workers;  // none: plain ones
  std::optional<uint64_t> seed;                      // seeds the seeds of requests without one
  int32_t max_prompt_tokens = 1 << 20;
  const Clock* clock = nullptr;
};

// Chosen from the number of CPUs.
int32_t DefaultNumWorkers();

// Thread-safe.
class Frontend {
 public:
  // `tokenizer` may be null: text prompts are then refused. Everything outlives the frontend.
  static std::unique_ptr<Frontend> Create(Engine& engine, const ModelConfig& config,
                                          const GenerationDefaults& defaults,
                                          const Tokenizer* tokenizer, FrontendOptions options);
  // REQUIRES: no request is in flight (Engine::Drain comes first).
  virtual ~Frontend() = default;

  // On error the handler is not called. INVALID_ARGUMENT names the field (FieldOf), NOT_FOUND:
  // unknown model; else as Engine::Submit. The handler is kept until its OnDone has returned.
  virtual absl::StatusOr<std::shared_ptr<RequestControl>> Generate(
      CompletionRequest request, std::shared_ptr<CompletionHandler> handler) = 0;
  virtual absl::StatusOr<std::shared_ptr<RequestControl>> Score(
      ScoreInput input, std::shared_ptr<ScoreHandler> handler) = 0;

  virtual absl::StatusOr<std::vector<int32_t>> Tokenize(const std::string& model,
                                                        const std::string& text,
                                                        bool add_special_tokens) = 0;
  virtual absl::StatusOr<std::string> Detokenize(const std::string& model,
                                                 const std::vector<int32_t>& ids,
                                                 bool skip_special_tokens) = 0;
  // NOT_FOUND unless `model` is empty or the served name.
  virtual absl::Status CheckModel(const std::string& model) const = 0;
  virtual const Tokenizer* tokenizer() const = 0;
  virtual const std::string& served_model_name() const = 0;
};

}  // namespace hgrn2
