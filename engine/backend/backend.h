// One device with a model on it: what the engine thread talks to.
//
// The seam is a whole step (feed these tokens to these slots, sample), not single operators: what is
// worth fusing differs between a CPU, a GPU graph and a persistent kernel, while the meaning of a
// step does not. Tests run one body over every backend through this interface.
//
// Threads: every method is called by one thread, the engine's. Pointers and spans passed in need to
// live only for the call.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/model_config.h"
#include "engine/loader/weights.h"
#include "kernels/dtype.h"
#include "kernels/sampling.h"

namespace hgrn2 {

// How the tokens of the sequence in a slot are sampled. Set once per sequence by
// Backend::ConfigureSlot.
struct SlotSampling {
  SamplingScalars scalars;
  // Tokens generated so far; the position of the next draw of the seed. > 0 when a sequence resumes.
  uint32_t num_generated = 0;
  // While fewer tokens were generated, `min_tokens_bans` are banned.
  uint32_t min_tokens = 0;
  std::vector<int32_t> min_tokens_bans;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;  // empty: all
  // Banned at every step: single-token bad_words. Longer ones come with each step (StepSequence).
  std::vector<int32_t> banned_token_ids;
  // For the penalties: the prompt, and what was generated before (when a sequence resumes).
  std::vector<int32_t> prompt_tokens;
  std::vector<int32_t> generated_tokens;

  bool HasPenalties() const {
    return scalars.presence_penalty != 0 || scalars.frequency_penalty != 0 ||
           scalars.repetition_penalty != 1;
  }
};

// One sequence's part in a step.
struct StepSequence {
  int32_t slot = 0;
  // The tokens to feed: tokens[token_begin, token_begin + num_tokens) of the batch. num_tokens >= 1.
  int32_t token_begin = 0;
  int32_t num_tokens = 1;
  // Feed the token that the previous step sampled for this slot (num_tokens is 1 and its entry in
  // `tokens` is ignored): lets a step be enqueued before the last one's tokens are on the host.
  bool token_on_device = false;
  // Zero the slot's state first.
  bool reset_state = false;
  // Sample the next token from the last position.
  bool sample = false;
  // Return log-probabilities of score_targets (same indexing as tokens) at positions where the
  // target is >= 0, with `score_top_n` alternatives each.
  bool score = false;
  int32_t score_top_n = 0;
  // Tokens banned in this step alone (bad_words whose beginning was just generated).
  std::vector<int32_t> banned_token_ids;
};

// Sequences appear at most once each. Results do not depend on the other sequences of the batch.
struct StepBatch {
  std::vector<int32_t> tokens;
  std::vector<int32_t> score_targets;  // empty, or one per token: -1 or the token to score
  std::vector<StepSequence> sequences;

  void Clear() {
    tokens.clear();
    score_targets.clear();
    sequences.clear();
  }
};

struct TopToken {
  int32_t token_id;
  float logprob;
};

struct TokenScore {
  int32_t token_id = -1;
  float logprob = 0;  // natural log, of the raw distribution
  int32_t rank = 0;   // 1 + number of tokens with a greater logit
  std::vector<TopToken> top;  // most probable first; ties to the lower id
};

struct SequenceResult {
  // The sampled token, or -1 if the sequence did not sample. logprob, rank and top are filled if the
  // slot's scalars.logprobs >= 0.
  TokenScore sampled;
  // One per score target >= 0, in order.
  std::vector<TokenScore> scores;
};

// In the order of StepBatch::sequences.
struct StepResult {
  std::vector<SequenceResult> sequences;
  double device_seconds = 0;  // time the device spent on the step, if known
};

// A sequence's state in host memory, self-describing: what pre-emption, and forks that find too few
// free slots, copy.
struct StateBlob {
  std::string model_hash;
  DType dtype = DType::kF32;
  int64_t num_tokens = 0;       // tokens the state has seen; kept by the engine
  std::vector<uint8_t> state;   // [L][H][K][V] in dtype
  std::vector<uint8_t> scales;  // kF8E4M3: float [L][H][K]
  std::vector<float> conv;      // [L][3 (q, f, i)][conv_size - 1, oldest first][d]
};

struct BackendInfo {
  std::string device;       // "cpu (avx512_bf16, 2 threads)", "cuda:0 (NVIDIA H100 80GB HBM3)"
  DType dtype;              // arithmetic of the products
  DType state_dtype;
  int64_t weight_bytes = 0;
  int64_t state_bytes_per_sequence = 0;
  int32_t num_slots = 0;    // may be below what was asked for: what fits
  int32_t max_batched_tokens = 0;
  // Steps that may be enqueued before the oldest is collected: 1 (CPU) or 2.
  int32_t pipeline_depth = 1;
  int32_t state_replay = 1;  // tokens until a state is written; BackendOptions'
  // Prompt tokens that a step of decodes can take in for little more than one of them costs. 0: no
  // advice.
  int32_t prefill_tokens_beside_decodes = 0;
};

struct BackendOptions {
  std::optional<DType> dtype;        // unset: the checkpoint's, where the device is fast at it
  std::optional<DType> state_dtype;  // unset: the backend's default
  int32_t num_slots = 64;
  int32_t max_batched_tokens = 0;    // 0: the backend's default
  int32_t num_threads = 0;           // CPU: 0 = the CPUs this process may use (affinity, cgroup)
  // CUDA
  int32_t device_index = 0;
  int32_t state_replay = 0;  // 1: states are written at every token; 0: DefaultStateReplay
  bool fp8_weights = false;
  double memory_utilization = 0.9;
};

// What keeps logits within 5e-3 (FP8) and 1e-4 (float16) of a float32 state's (bench/RESULTS.md).
constexpr int32_t DefaultStateReplay(DType state_dtype) {
  return state_dtype == DType::kF8E4M3 ? 32 : 16;
}

class Backend {
 public:
  virtual ~Backend() = default;

  virtual const BackendInfo& info() const = 0;

  // Before the first step of a sequence that samples or resumes in `slot`.
  virtual absl::Status ConfigureSlot(int32_t slot, const SlotSampling& sampling) = 0;

  // Begins a step. REQUIRES: fewer than info().pipeline_depth steps are pending; at most
  // max_batched_tokens tokens; valid slots and token ids (the engine checked them).
  // An error is fatal to the backend: nothing may be called after it.
  virtual absl::Status Enqueue(const StepBatch& batch) = 0;
  // Waits for the oldest pending step and takes its results.
  virtual absl::Status Collect(StepResult* result) = 0;

  // State copies are ordered after every enqueued step. CopyState does not wait for them. What goes
  // on from a copy, from a blob or in the slot that was copied goes on from the same bits.
  virtual absl::Status CopyState(int32_t from_slot, int32_t to_slot) = 0;
  virtual absl::StatusOr<StateBlob> SaveState(int32_t slot) = 0;
  // FAILED_PRECONDITION if the blob is of another model; converts between state dtypes.
  virtual absl::Status RestoreState(int32_t slot, const StateBlob& blob) = 0;

  // Runs the batch to its end and returns the logits of every token, [tokens][vocab], for parity
  // tests and tools. Advances states as a step does; samples nothing. REQUIRES: no pending step.
  virtual absl::StatusOr<std::vector<float>> ForwardLogits(const StepBatch& batch) = 0;
};

// INVALID_ARGUMENT for an unsupported dtype; RESOURCE_EXHAUSTED with the arithmetic if it cannot fit.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const ModelWeights& weights,
                                                        const BackendOptions& options);
// Defined only when built with CUDA (HGRN2_WITH_CUDA).
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const ModelWeights& weights,
                                                         const BackendOptions& options);

}  // namespace hgrn2
