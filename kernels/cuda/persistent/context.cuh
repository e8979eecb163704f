// What the parts of the persistent kernel share: shared memory, workspace and thread roles.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/persistent/async.cuh"
#include "kernels/cuda/persistent/decode.h"

namespace hgrn2::cuda::persistent {

// A stage of the weights' ring: 4 k-steps of all warps.
template <bool kFp8>
constexpr int kStageBytes = 4 * SlotBytes(kFp8);
constexpr int kDefaultInflightKib = 32;
// Partial sums of products between warps, and scratch of the recurrence.
constexpr int kScratchBytes = 32 * 1024;
constexpr int kMaxStages = 28;
constexpr int kMaxLayers = 128;
// FP8 weights are unpacked into bfloat16 as 2^-120 of their value (their exponent bias is kept), so
// their activations carry 2^60 and the sums another 2^60: both exact.
constexpr float kFp8ActivationScale = 1152921504606846976.0f;

// Device memory that lives for one step, except `barrier` and `exits`, which are zero between
// steps.
struct Workspace {
  uint32_t* barrier;    // arrivals so far
  uint32_t* exits;      // blocks that passed the last barrier
  float* x;             // [B][d] residual stream
  __nv_bfloat16* x_in;  // [B][d] x times the next norm's weight
  float* x_squares;     // [B][d / 16] sums of squares of x
  __nv_bfloat16* qfi;   // [B][3 d] raw projections
  __nv_bfloat16* o_in;  // [B][d] o times g_norm's weight
  float* o_squares;     // [B][d / 16]
  __nv_bfloat16* u;     // [B][m]
};

HGRN2_HOST_DEVICE inline size_t Align256(size_t n) { return (n + 255) / 256 * 256; }

// Lays the workspace out from `base`; returns its size. base may be null to learn the size.
HGRN2_HOST_DEVICE inline size_t LayOut(const ModelShape& s, int batch, void* base, Workspace* w) {
  uint8_t* at = static_cast<uint8_t*>(base);
  size_t used = 0;
  auto take = [&](size_t bytes) {
    void* here = at + used;
    used += Align256(bytes);
    return here;
  };
  const size_t b = batch, d = s.d, m = s.m;
  w->barrier = static_cast<uint32_t*>(take(256));
  w->exits = static_cast<uint32_t*>(take(256));
  w->x = static_cast<float*>(take(b * d * 4));
  w->x_in = static_cast<__nv_bfloat16*>(take(b * d * 2));
  w->x_squares = static_cast<float*>(take(b * d / 16 * 4));
  w->qfi = static_cast<__nv_bfloat16*>(take(b * 3 * d * 2));
  w->o_in = static_cast<__nv_bfloat16*>(take(b * d * 2));
  w->o_squares = static_cast<float*>(take(b * d / 16 * 4));
  w->u = static_cast<__nv_bfloat16*>(take(b * m * 2));
  return used;
}

struct RingState {
  uint32_t full;   // shared address of stage 0's "bytes have landed" barrier; 8 bytes apart
  uint32_t empty;  // likewise "all warps have read"
  uint32_t data;   // shared address of stage 0
  int stages;
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Advance() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// A sequence of the batch, read once a step.
struct Sequence {
  int slot;
  int age;  // < 0: the state counts as zero (reset)
};

struct Context {
  const DecodeParams& p;
  Workspace ws;
  RingState ring;
  float* scratch;               // kScratchBytes
  float* row_scale;             // [kMaxBatch] 1 / rms of the product's input
  Sequence* sequences;          // [kMaxBatch]
  volatile int* progress;       // products begun, for the prefetching warp
  const LayerPointers* layers;  // in shared memory
  const TileRange* ranges;      // this block's, in shared memory
  uint32_t target = 0;          // of the grid barrier
  int traced = 0;

  __device__ __forceinline__ void Trace() {
    if (p.trace == nullptr || threadIdx.x != 0 || traced >= p.trace_capacity) return;
    p.trace[int64_t{blockIdx.x} * p.trace_capacity + traced++] = clock64();
  }

  __device__ __forceinline__ void Sync() { NamedSync<kConsumers>(); }
  __device__ __forceinline__ void Arrive() {
    Trace();
    GridArrive<kConsumers>(ws.barrier);
    target += p.blocks;
  }
  __device__ __forceinline__ void Wait() {
    GridWait<kConsumers>(ws.barrier, target);
    Trace();
  }
};

}  // namespace hgrn2::cuda::persistent
