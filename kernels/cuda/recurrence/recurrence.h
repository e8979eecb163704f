// The recurrence of HGRN2 on a GPU: decode step (plain or replay), chunked prefill, short
// convolution, and copies of states. See docs/kernels/{state-step,replay,chunked-prefill,
// short-conv}.md for the maths, tiling and byte floors.
//
// All launchers enqueue and return; they allocate nothing and wait for nothing, so they may be
// captured in a graph. cudaErrorInvalidValue: a shape or dtype outside the contract below.
//
// Shapes: d = num_heads * head_dim, K = V = head_dim (a multiple of 16, 16..256), d a multiple
// of 16. Activations are kBF16 or kF32. A "slot" is a sequence's place in the state slabs.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/dtype.h"

namespace hgrn2::cuda {

// Sums of squares come in groups of this many consecutive channels, so that their number and their
// order of summation never depend on a tile choice.
inline constexpr int32_t kSumSquareGroup = 32;
inline constexpr int32_t kMaxReplay = 32;

// One layer's states.
struct StateSlab {
  void* state = nullptr;    // [slots][H][K][V] in dtype
  float* scales = nullptr;  // [slots][H][K], kF8E4M3 only: S = scale * e4m3
  DType dtype = DType::kF16;
};

// One layer's ring of tokens that are not folded into the state yet. It keeps the raw projections
// (f before the gate, i) in the activation dtype, so nothing is lost by waiting.
//
// `age[slot]` counts the tokens since the state was last written whole (a reset or a prefill) and
// is shared by all layers: AdvanceAges moves it once a step, after the last layer. With
// x = (age + phase) % length, the ring holds the last n = min(age, x) tokens at indices
// [x - n, x); a step at x = length - 1 folds. Give each layer another phase (its index): then every
// step folds in 1/length of the layers instead of every length-th step in all of them.
struct ReplayRing {
  void* entries = nullptr;       // [slots][H][length][2 (f, i)][K] in the activation dtype
  const int32_t* age = nullptr;  // [slots]
  int32_t length = 1;            // N <= kMaxReplay; 1: no ring, the state is written at each step
  int32_t phase = 0;
};

constexpr size_t ReplayRingBytes(int32_t slots, int32_t length, int32_t d, DType activation) {
  return length <= 1 ? 0 : static_cast<size_t>(slots) * length * 2 * d * SizeOf(activation);
}

// ---- decode: one token for each of `batch` sequences ------------------------------------------

// q = swish(q); g = lb + (1 - lb) sigmoid(f); S = diag(g) S + (1 - g) i; o = K^-1/2 q^T S.
struct DecodeStepParams {
  const void* qfi = nullptr;  // [tokens][3d]: q | f | i, raw projections
  void* o = nullptr;          // [tokens][d], activation dtype
  // [tokens][d / kSumSquareGroup] of o, or null; head_dim a multiple of kSumSquareGroup
  float* sum_squares = nullptr;
  const float* lower_bound = nullptr;  // [d]
  const int32_t* slots = nullptr;      // [batch]; < 0: padding, o and sum_squares are zeroed
  const int32_t* token_rows =
      nullptr;                     // [batch] row in qfi and o of each sequence; null: its index
  const uint8_t* reset = nullptr;  // [batch] 1: the state counts as zero and is written whole
                                   // (AdvanceAges must then get written = 1); null: none
  StateSlab state;
  ReplayRing ring;
  int32_t batch = 0;
  int32_t num_heads = 0;
  int32_t head_dim = 0;
  DType activation = DType::kBF16;
  // Launch as a programmatic dependent of the kernel before it in the stream: states and ring are
  // fetched before that kernel (the projection) has ended. slots, token_rows, reset, age and
  // lower_bound must have been final before it started. Ignored below sm_90.
  bool programmatic = false;
  // The kernel before it in the stream is LaunchPrefill's, of other sequences of the same qfi: run
  // beside it. What comes next still waits for both.
  bool after_prefill = false;
  // Two zeros on the device, zeros again when the kernel ends; null: none. With them, and where the
  // pipeline of replay.md runs, blocks take their work piece by piece instead of a fixed part each:
  // for a step beside another kernel, which keeps some blocks from starting with the others. The
  // same bits. REQUIRES: no other kernel that may run at the same time uses them.
  uint32_t* work_counters = nullptr;
  // With work_counters, if the other kernel ends well before this one: about how many
  // multiprocessors it holds. All other blocks then take most of their work at once. Speed only.
  int32_t late_processors = 0;
};
cudaError_t LaunchDecodeStep(const DecodeStepParams& params, cudaStream_t stream);

// age[slots[b]] = written[b] ? 0 : age + 1, once per step after the last layer.
struct AdvanceAgesParams {
  int32_t* age = nullptr;            // [slots]
  const int32_t* slots = nullptr;    // [batch], distinct; < 0: skipped
  const uint8_t* written = nullptr;  // [batch] 1: every layer wrote the slot's state whole; null: 0
  int32_t batch = 0;
};
cudaError_t LaunchAdvanceAges(const AdvanceAgesParams& params, cudaStream_t stream);

// ---- copies of states ------------------------------------------------------------------------

// Brings together S_0 and the ring. With `out` the result goes there in float32 and the slot is
// untouched; without, it goes back to the slab (the caller then sets age to 0, AdvanceAges with
// written = 1, after the last layer): needed before a prefill that continues a used slot.
struct GatherStateParams {
  StateSlab state;
  ReplayRing ring;
  const float* lower_bound = nullptr;  // [d]; may be null if ring.length == 1
  const int32_t* slots = nullptr;      // [batch]; < 0: skipped
  float* out = nullptr;                // [batch][H][K][V] or null
  int32_t batch = 0;
  int32_t num_heads = 0;
  int32_t head_dim = 0;
  DType activation = DType::kBF16;
};
cudaError_t LaunchGatherState(const GatherStateParams& params, cudaStream_t stream);

// float32 states -> slab, rounded to its dtype. The caller sets age to 0.
struct ScatterStateParams {
  StateSlab state;
  const float* in = nullptr;       // [batch][H][K][V]
  const int32_t* slots = nullptr;  // [batch]; < 0: skipped
  int32_t batch = 0;
  int32_t num_heads = 0;
  int32_t head_dim = 0;
};
cudaError_t LaunchScatterState(const ScatterStateParams& params, cudaStream_t stream);

// ---- prefill: runs of tokens of packed sequences ----------------------------------------------

struct PrefillSequence {
  int32_t token_begin = 0;  // row of its first token in qfi
  int32_t num_tokens = 0;   // >= 1
  int32_t slot = 0;
  bool reset = false;  // start from zero instead of the slot's state
};

// A part of a sequence that one thread block walks through (for each head). Long sequences are cut
// at fixed token counts, never by what else is in the batch.
struct PrefillItem {
  int32_t token_begin = 0;
  int32_t num_tokens = 0;      // 0: padding, nothing is done
  int32_t sequence_begin = 0;  // token_begin of the sequence's first item
  int32_t sequence_end = 0;    // one past the last token of its last item
  int32_t slot = 0;
  int32_t reset = 0;
  int32_t workspace = -1;  // index of this item's final state in the workspace, -1: not needed
  int32_t index = 0;       // of the item in its sequence
};
// Sequences longer than kLongPrefill are cut into items of a multiple of 64 tokens in this range.
inline constexpr int32_t kLongPrefill = 1024;
inline constexpr int32_t kMinPrefillSegment = 256;
inline constexpr int32_t kMaxPrefillSegment = 1024;

struct PrefillPlan {
  std::vector<PrefillItem> items;    // items of a sequence are consecutive
  int32_t num_workspace_states = 0;  // a long sequence has one more than items: its initial state
  bool has_long_sequences = false;   // some sequence has several items
};

// Pure host function. `state_dtype` because an FP8 state wider than one block needs a detour.
PrefillPlan PlanPrefill(std::span<const PrefillSequence> sequences, int32_t head_dim,
                        DType activation, DType state_dtype);
// Bytes for `num_states` workspace states; and the most states a plan over `max_tokens` tokens and
// `max_sequences` sequences can ask for.
size_t PrefillWorkspaceBytes(int32_t num_states, int32_t num_heads, int32_t head_dim);
int32_t MaxPrefillWorkspaceStates(int32_t max_tokens, int32_t max_sequences, int32_t head_dim,
                                  DType activation, DType state_dtype);
int32_t MaxPrefillItems(int32_t max_tokens, int32_t max_sequences);

// kBF16: chunked form on tensor cores. kF32: the recurrence in float32.
// A slot that continues must have an empty ring (LaunchGatherState without out first). The final
// state is written to the slot; the caller sets the slot's age to 0.
struct PrefillParams {
  const void* qfi = nullptr;  // [tokens][3d]
  void* o = nullptr;          // [tokens][d]
  // [tokens][d / kSumSquareGroup] of o in float32, or null; head_dim a multiple of kSumSquareGroup.
  // Only rows of the items' tokens are written.
  float* sum_squares = nullptr;
  const float* lower_bound = nullptr;  // [d]
  const PrefillItem* items = nullptr;  // [num_items] on the device, PlanPrefill's
  void* workspace = nullptr;           // PrefillWorkspaceBytes(plan.num_workspace_states, ...)
  StateSlab state;
  int32_t num_items = 0;
  bool has_long_sequences = false;
  int32_t num_heads = 0;
  int32_t head_dim = 0;
  DType activation = DType::kBF16;
  // Launch as a programmatic dependent of the kernel before it in the stream. REQUIRES: items were
  // final before that kernel started. Ignored below sm_90.
  bool programmatic = false;
};
cudaError_t LaunchPrefill(const PrefillParams& params, cudaStream_t stream);

// ---- short convolution on q, f and i ------------------------------------------------------------

inline constexpr int32_t kMaxConvSize = 8;

// y[t] = sum_j weight[j] x[t - (conv_size - 1) + j], causal, depthwise, no activation; then the
// slot's last conv_size - 1 inputs are kept, oldest first.
struct ShortConvParams {
  const void* x = nullptr;        // [tokens][3d], activation dtype
  void* y = nullptr;              // [tokens][3d]; may be x for decode, not for prefill
  const float* weight = nullptr;  // [3d][conv_size]; the last column meets the newest input
  void* state = nullptr;          // [slots][3][conv_size - 1][d], activation dtype, oldest first
  int32_t conv_size = 4;          // 2..kMaxConvSize
  int32_t d = 0;
  DType activation = DType::kBF16;
};

struct ShortConvDecodeParams {
  ShortConvParams conv;
  const int32_t* slots = nullptr;       // [batch]; < 0: skipped
  const int32_t* token_rows = nullptr;  // [batch] or null
  const uint8_t* reset = nullptr;       // [batch] or null
  int32_t batch = 0;
};
cudaError_t LaunchShortConvDecode(const ShortConvDecodeParams& params, cudaStream_t stream);

struct ShortConvPrefillParams {
  ShortConvParams conv;
  const PrefillItem* items = nullptr;  // [num_items] on the device
  int32_t num_items = 0;
};
cudaError_t LaunchShortConvPrefill(const ShortConvPrefillParams& params, cudaStream_t stream);

}  // namespace hgrn2::cuda
