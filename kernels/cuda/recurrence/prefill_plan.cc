#include <algorithm>

#include "kernels/cuda/recurrence/prefill_internal.h"

namespace hgrn2::cuda {

namespace {

// A function of the sequence's own length, so that its result does not depend on its company. A
// sequence that is cut is walked twice (states, then outputs), which pays when it would otherwise
// leave the device idle; about 16 items fill it.
int32_t SegmentTokens(int32_t num_tokens, DType activation) {
  if (activation == DType::kF32 || num_tokens <= kLongPrefill) return num_tokens;
  const int32_t rounded = (num_tokens / 16 + 63) / 64 * 64;
  return std::clamp(rounded, kMinPrefillSegment, kMaxPrefillSegment);
}

}  // namespace

PrefillPlan PlanPrefill(std::span<const PrefillSequence> sequences, int32_t head_dim,
                        DType activation, DType state_dtype) {
  PrefillPlan plan;
  const bool detour = FinalStateDetour(head_dim, activation, state_dtype);
  for (const PrefillSequence& sequence : sequences) {
    const int32_t segment = SegmentTokens(sequence.num_tokens, activation);
    const bool is_long = sequence.num_tokens > segment;
    const int32_t end = sequence.token_begin + sequence.num_tokens;
    plan.has_long_sequences |= is_long;
    if (is_long) ++plan.num_workspace_states;  // the initial state, in front of the items' states
    for (int32_t begin = sequence.token_begin; begin < end; begin += segment) {
      PrefillItem item;
      item.token_begin = begin;
      item.num_tokens = std::min(segment, end - begin);
      item.sequence_begin = sequence.token_begin;
      item.sequence_end = end;
      item.slot = sequence.slot;
      item.reset = sequence.reset ? 1 : 0;
      item.index = (begin - sequence.token_begin) / segment;
      if (is_long || detour) item.workspace = plan.num_workspace_states++;
      plan.items.push_back(item);
    }
  }
  return plan;
}

size_t PrefillWorkspaceBytes(int32_t num_states, int32_t num_heads, int32_t head_dim) {
  return static_cast<size_t>(num_states) * WorkspaceStride(num_heads, head_dim) * sizeof(float);
}

int32_t MaxPrefillItems(int32_t max_tokens, int32_t max_sequences) {
  return max_tokens / kMinPrefillSegment + max_sequences;
}

int32_t MaxPrefillWorkspaceStates(int32_t max_tokens, int32_t max_sequences, int32_t head_dim,
                                  DType activation, DType state_dtype) {
  const int32_t most_long =
      activation == DType::kF32 ? 0 : std::min(max_tokens / (kLongPrefill + 1), max_sequences);
  const int32_t long_items = most_long == 0 ? 0 : max_tokens / kMinPrefillSegment + most_long;
  const bool detour = FinalStateDetour(head_dim, activation, state_dtype);
  return long_items + most_long + (detour ? max_sequences : 0);
}

}  // namespace hgrn2::cuda
