// The host's part of a CUDA step: turns a StepBatch into the arrays that kernels read, laid out in
// one block of bytes for one copy. Pure: no CUDA call, tested without a GPU.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "kernels/cuda/recurrence/recurrence.h"
#include "kernels/cuda/sampling/sampling.h"

namespace hgrn2 {

// What BuildStep needs to know about the backend.
struct StepContext {
  int32_t head_dim = 128;
  DType activation = DType::kBF16;
  DType state_dtype = DType::kF16;
  // [num_slots] tokens in each slot's replay ring, as AdvanceAges counts; all zero without replay.
  std::span<const int32_t> ages;
  int32_t min_tokens = 0;  // pad to at least the bucket of this many
};

// Where a sequence's answers are among the step's results.
struct StepOutputs {
  int32_t sampled = -1;  // index, or -1
  int32_t scores = 0;    // first index
  int32_t num_scores = 0;
};

// An array inside the block: byte offset and elements.
struct StepArray {
  size_t offset = 0;
  int32_t count = 0;
};

// Sizes of a step and the arrays' places. Two steps of equal shape have equal offsets, so a
// captured graph serves both.
struct StepShape {
  int32_t num_tokens = 0;
  int32_t padded_tokens = 0;     // rows of the products
  int32_t num_rows = 0;          // rows of logits
  bool graphable = false;        // one token per sequence, all padded to a bucket
  bool mixed_graphable = false;  // decodes beside prompts, every array padded: see MixedGraphKey
  int32_t num_workspace_states = 0;
  bool has_long_sequences = false;

  StepArray tokens;         // int32 [padded_tokens]: ids, -1: the slot's last sampled token
  StepArray token_slots;    // int32 [padded_tokens], -1: padding
  StepArray decode_slots;   // int32 [decodes]
  StepArray decode_rows;    // int32 [decodes]
  StepArray decode_reset;   // uint8 [decodes]
  StepArray prefill_items;  // PrefillItem
  StepArray flush_slots;    // int32: slots whose ring must be folded before their prefill
  StepArray age_slots;      // int32 [sequences]
  StepArray age_written;    // uint8 [sequences]
  StepArray row_index;      // int32 [num_rows padded for the head's product]
  StepArray rows;           // LogitRow, likewise
  StepArray bans;           // int32
  size_t bytes = 0;
};

struct StepPlan {
  StepShape shape;
  std::vector<uint8_t> bytes;
  std::vector<StepOutputs> outputs;  // per sequence
  int32_t num_outputs = 0;
};

// Decode-only batches of sequences without scores become graphable: arrays are padded to the bucket
// of GemmTokenBucket, and step bans to kGraphBansPerRow a row (more: not graphable).
inline constexpr int32_t kGraphBansPerRow = 8;
// Decodes beside prompts become mixed_graphable: arrays are padded to sizes of which a load has
// few, so that steps repeat each other's shape. Steps of equal keys may share a captured graph.
using MixedGraphKey = std::array<int32_t, 4>;
MixedGraphKey MixedGraphKeyOf(const StepShape& shape);
// Room for the bans of a step that is not graphable.
inline constexpr size_t kMaxExtraBanBytes = size_t{8} << 20;

// all_logits: a row of logits for every token, nothing sampled (ForwardLogits).
void BuildStep(const StepBatch& batch, const StepContext& context, bool all_logits, StepPlan* plan);

// Upper bound of StepShape::bytes.
size_t MaxStepBytes(int32_t max_tokens, int32_t num_slots);

}  // namespace hgrn2
