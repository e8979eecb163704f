// One decode step of the whole model for a small batch as ONE persistent kernel: embedding, all
// layers with their recurrence, head. See docs/kernels/persistent-decode.md.
//
// For batches where the weights are most of the bytes. Reads its own packed copy of the weights
// (PackWeights) and the same state slabs, replay rings and ages as kernels/cuda/recurrence, so
// steps may alternate freely with prefill and with the kernels for large batches.
//
// A token's result depends on its sequence alone: every product adds in the same order whatever the
// batch. Needs sm_90 and every block resident at once (one per multiprocessor): nothing else may
// occupy the device for good.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/model_view.h"
#include "kernels/cuda/persistent/layout.h"
#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda::persistent {

// What the kernel reads of one layer, apart from packed weights. An array of these in device
// memory.
struct LayerPointers {
  const float* attn_norm = nullptr;    // [d]
  const float* g_norm = nullptr;       // [d]
  const float* mlp_norm = nullptr;     // [d]
  const float* lower_bound = nullptr;  // [d]
  const float* scale[kProductsPerLayer] =
      {};                        // FP8 only: one factor per row of qfi, o, gate_up, down
  void* state = nullptr;         // StateSlab::state; dtype in DecodeParams
  void* ring_entries = nullptr;  // ReplayRing::entries, bfloat16
  int32_t ring_phase = 0;        // ReplayRing::phase
  int32_t pad = 0;
};

enum class Exchange : uint8_t { kAuto, kBarriers };

struct DecodeParams {
  ModelShape shape;
  int32_t heads = 0;
  int32_t head_dim = 0;
  float norm_eps = 1e-6f;
  float g_norm_eps = 1e-5f;
  const LayerPointers* layers = nullptr;  // device [shape.layers]
  const float* final_norm = nullptr;      // [d]
  const void* embeddings = nullptr;       // bfloat16 [vocab, d]
  const void* weights = nullptr;          // PackWeights' output
  const TileRange* ranges = nullptr;      // device copy of AssignTiles(shape, blocks)
  int32_t blocks = 0;

  const int32_t* tokens = nullptr;  // [batch]
  const int32_t* slots = nullptr;   // [batch], distinct; < 0: padding, its logits are meaningless
  const uint8_t* reset = nullptr;   // [batch] 1: the state counts as zero; null: none
  int32_t batch = 0;                // 1..kMaxBatch

  DType state_dtype = DType::kF16;  // kF32, kF16, kBF16
  int32_t ring_length = 1;          // 1..kMaxReplay; 1: the state is written at each step
  int32_t* age = nullptr;           // [slots], ring_length > 1 only
  bool advance_ages = false;        // do what LaunchAdvanceAges does, at the end

  void* workspace = nullptr;  // WorkspaceBytes(), zeroed once before the first launch
  float* logits = nullptr;    // [batch][vocab]
  bool programmatic = false;  // launch as a programmatic dependent: weights are fetched before
                              // the kernel ahead in the stream has ended
  // How activations pass between blocks: behind grid barriers, or in cells with flags that say when
  // they are there, which reads twice the bytes but is faster for one or two tokens. The results
  // are the same bits. kAuto: flags where they are faster and fit (WithFlags()).
  Exchange exchange = Exchange::kAuto;
  // Bytes of weights under way per block, in KiB; 0: the default. What is under way queues up in
  // the memory system in front of the activations and barriers that other blocks wait for, so it
  // should be no more than it takes to keep the memory busy.
  int32_t inflight_kib = 0;
  // For measurements: [blocks][trace_capacity] multiprocessor clocks, two per phase (its end, the
  // next one's inputs are there); in the last two entries the clocks that the fetching thread
  // waited for space in the ring and for bytes to land. Null: none.
  int64_t* trace = nullptr;
  int32_t trace_capacity = 0;
};

// Whether the kernel can serve this model, on a device of this compute capability. If not, *why (a
// literal) says what stands in the way.
bool Supports(const ModelView& model, DType state_dtype, int32_t ring_length,
              int compute_capability, const char** why);

ModelShape ShapeOf(const ModelView& model);
size_t WorkspaceBytes(const ModelShape& shape, int32_t max_batch);

// Fills `packed` (shape.PackedBytes(), 128-byte aligned) from the model's row-major weights.
cudaError_t PackWeights(const ModelView& model, void* packed, cudaStream_t stream);

// Whether this step exchanges activations in flagged cells.
bool WithFlags(const DecodeParams& params);

// REQUIRES: Supports(); workspace not in use by another launch that may run at the same time.
cudaError_t LaunchDecode(const DecodeParams& params, cudaStream_t stream);

}  // namespace hgrn2::cuda::persistent
