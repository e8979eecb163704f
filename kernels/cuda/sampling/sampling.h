// Sampling and scoring of rows of logits on the device, with the meaning of kernels/sampling.h.
// See docs/kernels/sampling.md.
#pragma once

#include "kernels/cuda/common.h"
#include "kernels/sampling.h"

namespace hgrn2::cuda {

inline constexpr int32_t kMaxTopLogprobs = 20;

// Bits of a slot's per-token table `token_flags`; the lower bits count generated occurrences.
inline constexpr uint32_t kTokenInPrompt = 1u << 31;
inline constexpr uint32_t kTokenMinTokensBan = 1u << 30;  // banned while num_generated < min_tokens
inline constexpr uint32_t kTokenStepBan = 1u << 29;       // transient, set and cleared by a launch
inline constexpr uint32_t kTokenCountMask = kTokenStepBan - 1;

// What a slot's sequence asked for. Uploaded by the host once per sequence.
struct SlotSamplingParams {
  SamplingScalars scalars;
  uint32_t min_tokens = 0;
  uint8_t has_bias = 0;         // the slot's row of `bias` is in use (-inf: banned)
  uint8_t has_token_flags = 0;  // the slot's row of `token_flags` is in use
  uint8_t pad[2] = {};
};

// One row of logits: a token to draw (target < 0) or to score (target >= 0).
struct LogitRow {
  int32_t x_row = -1;  // row of the residual stream the logits are of (the head's gather reads it)
  int32_t slot = -1;   // < 0 with target < 0: padding, nothing is done
  int32_t target = -1;
  int32_t top_n = 0;      // scoring: alternatives wanted, <= kMaxTopLogprobs
  int32_t out_index = 0;  // where in the step's results
  int32_t ban_begin = 0;  // bans[ban_begin, ban_begin + ban_count): in this step alone
  int32_t ban_count = 0;
  int32_t pad = 0;
};

struct TokenResult {
  int32_t token = -1;
  float logprob = 0;  // of the raw distribution
  int32_t rank = 0;   // 1 + tokens with a greater logit
  int32_t num_top = 0;
  int32_t top_token[kMaxTopLogprobs];
  float top_logprob[kMaxTopLogprobs];
};

struct SampleParams {
  const float* logits = nullptr;   // [num_rows, vocab]
  const LogitRow* rows = nullptr;  // [num_rows]
  const int32_t* bans = nullptr;
  const SlotSamplingParams* slots = nullptr;  // [num_slots]
  const float* bias = nullptr;                // [num_slots, vocab]
  uint32_t* token_flags = nullptr;            // [num_slots, vocab]
  int32_t* last_token = nullptr;              // [num_slots], written
  uint32_t* num_generated = nullptr;          // [num_slots], incremented
  // Results of even and odd steps; *step (of the device) picks. May be mapped host memory.
  TokenResult* results[2] = {nullptr, nullptr};
  const uint32_t* step = nullptr;
  int32_t num_rows = 0;
  int32_t vocab = 0;
  bool overlap = false;
};
cudaError_t Sample(const SampleParams& params, cudaStream_t stream);

// Once per process and device, before the first Sample (raises the shared-memory limit).
cudaError_t InitSampling();

// Prepares one slot for a sequence: parameters, position, bias and per-token tables.
struct ConfigureSlotParams {
  int32_t slot = 0;
  int32_t vocab = 0;
  SlotSamplingParams sampling;
  uint32_t num_generated = 0;
  int32_t last_token = -1;         // of a sequence that resumes; -1: none yet
  bool clear_token_flags = false;  // zero the row first
  bool all_banned = false;         // bias row starts as -inf (allowed_token_ids), else 0
  // Device lists, in the order they are applied:
  const int32_t* prompt = nullptr;     // flags |= kTokenInPrompt
  const int32_t* generated = nullptr;  // count += 1 each
  const int32_t* min_bans = nullptr;   // flags |= kTokenMinTokensBan
  const int32_t* allowed = nullptr;    // bias = 0
  const int32_t* bias_ids = nullptr;   // bias += bias_values (ids distinct)
  const float* bias_values = nullptr;
  const int32_t* banned = nullptr;  // bias = -inf
  int32_t num_prompt = 0, num_generated_list = 0, num_min_bans = 0, num_allowed = 0, num_bias = 0,
          num_banned = 0;
  SlotSamplingParams* slots = nullptr;
  float* bias = nullptr;
  uint32_t* token_flags = nullptr;
  uint32_t* generated_counts = nullptr;  // [num_slots] num_generated
  int32_t* last_tokens = nullptr;        // [num_slots]
};
cudaError_t ConfigureSlot(const ConfigureSlotParams& params, cudaStream_t stream);

}  // namespace hgrn2::cuda
