// What the parts of the persistent kernel share: shared memory, workspace and thread roles.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/persistent/async.cuh"
#include "kernels/cuda/persistent/decode.h"
#include "kernels/cuda/persistent/exchange.cuh"

namespace hgrn2::cuda::persistent {

// A stage of the weights' ring: 4 k-steps of all warps.
template <bool kFp8>
constexpr int kStageBytes = 4 * SlotBytes(kFp8);
constexpr int kDefaultInflightKib = 32;
// Partial sums of products between warps, and scratch of the recurrence.
constexpr int kScratchBytes = 32 * 1024;
constexpr int kMaxStages = 28;
constexpr int kMaxLayers = 128;
// Channels of o that share a sum of squares: a block may own as few.
constexpr int kSquareGroup = 16;
// FP8 weights are unpacked into bfloat16 as 2^-120 of their value (their exponent bias is kept), so
// their activations carry 2^60 and the sums another 2^60: both exact.
constexpr float kFp8ActivationScale = 1152921504606846976.0f;

// Up to this batch flags beat barriers.
constexpr int kMaxFlagBatch = 2;
// Shared memory that a block may give to activations, at the cost of the weights' ring.
constexpr int64_t kMaxActivationBytes = 120 * 1024;

HGRN2_HOST_DEVICE inline size_t Align256(size_t n) { return (n + 255) / 256 * 256; }

// Flags: a block's copy of a product's whole input, bfloat16.
HGRN2_HOST_DEVICE inline int64_t ActivationBytes(const ModelShape& s, int batch) {
  const int steps =
      KStepsPerWarp(s.d) > KStepsPerWarp(s.m) ? KStepsPerWarp(s.d) : KStepsPerWarp(s.m);
  return int64_t{batch} * steps * kConsumerWarps * 16 * 2;
}

// Phases of a step that write cells: the embedding and five per layer.
HGRN2_HOST_DEVICE inline uint32_t FlagsPerStep(const ModelShape& s) { return 5 * s.layers + 1; }

// Words at the start of the workspace, which keep their values between steps. All start at zero.
struct WorkspaceHeader {
  alignas(256) uint32_t barrier;  // arrivals so far; zero between steps
  alignas(256) uint32_t exits;    // blocks that have begun the head; zero between steps
  // This step's cells carry flag + 1 (the embedding's) .. flag + FlagsPerStep().
  alignas(64) uint32_t flag;
};
static_assert(sizeof(WorkspaceHeader) == 512);

// Device memory that lives for one step, except the header: a row of cells per token, of which the
// pointers name token 0's parts. One area for each kind of cell: what a step without flags wrote
// must not look like a flag.
template <bool kFlags>
struct Workspace {
  WorkspaceHeader* header;
  Cell<kFlags>* x;          // [d] floats: the residual stream
  Cell<kFlags>* x_in;       // [d / 2] pairs: x times the next norm's weight
  Cell<kFlags>* x_squares;  // [d / 16] floats: sums of squares of x
  Cell<kFlags>* qfi;        // [3 d / 2] pairs: raw projections
  Cell<kFlags>* o_in;       // [d / 2] pairs: o times g_norm's weight
  Cell<kFlags>* o_squares;  // [d / 16] floats
  Cell<kFlags>* u;          // [m / 2] pairs
  int stride;               // cells of a row
};

// Lays the workspace out from `base`; returns its size. base may be null to learn the size. The
// area without flags comes last, since its size depends on the batch.
template <bool kFlags>
HGRN2_HOST_DEVICE inline size_t LayOut(const ModelShape& s, int batch, void* base,
                                       Workspace<kFlags>* w) {
  uint8_t* at = static_cast<uint8_t*>(base);
  int used = 0;
  auto take = [&](int64_t cells) {
    const int here = used;
    used += static_cast<int>(Align256(cells));
    return here;
  };
  const int x = take(s.d), x_in = take(s.d / 2), x_squares = take(s.d / 16),
            qfi = take(3 * s.d / 2), o_in = take(s.d / 2), o_squares = take(s.d / 16),
            u = take(s.m / 2);
  const size_t flagged = sizeof(WorkspaceHeader);
  const size_t plain = flagged + sizeof(Cell<true>) * used * kMaxFlagBatch;
  w->header = reinterpret_cast<WorkspaceHeader*>(at);
  auto* row = reinterpret_cast<Cell<kFlags>*>(at + (kFlags ? flagged : plain));
  w->x = row + x, w->x_in = row + x_in, w->x_squares = row + x_squares, w->qfi = row + qfi;
  w->o_in = row + o_in, w->o_squares = row + o_squares, w->u = row + u;
  w->stride = used;
  return plain + sizeof(Cell<false>) * used * batch;
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

// Consumers and, with flags, the warp that brings a product's row scales.
__device__ __forceinline__ void ScaledSync() {
  asm volatile("bar.sync 2, %0;" ::"n"(kConsumers + 32) : "memory");
}
__device__ __forceinline__ void ScaledArrive() {
  asm volatile("bar.arrive 2, %0;" ::"n"(kConsumers + 32) : "memory");
}

// A sequence of the batch, read once a step.
struct Sequence {
  int slot;
  int age;  // < 0: the state counts as zero (reset)
};

// kFlags: activations pass between blocks in flagged cells, else behind grid barriers.
template <bool kFlags>
struct Context {
  const DecodeParams& p;
  Workspace<kFlags> ws;
  RingState ring;
  float* scratch;          // kScratchBytes
  uint32_t activations;    // shared address of ActivationBytes(); flags only
  float* row_scale;        // [kMaxBatch] 1 / rms of the product's input
  Sequence* sequences;     // [kMaxBatch]
  volatile int* progress;  // products begun, for the auxiliary warps
  volatile uint32_t* embedded_flag;
  const LayerPointers* layers;  // in shared memory
  const TileRange* ranges;      // this block's, in shared memory
  uint32_t flag = 0;            // of the cells that the current phase writes
  uint32_t target = 0;          // of the grid barrier
  // Flags: tiles of a product whose sums are formed together, and this thread's part: of one tile
  // of them, one token's rows threadIdx.x % 8 and 8 further.
  int group = 0, unit_tile = 0, unit_token = 0;
  int traced = 0;

  __device__ __forceinline__ void Trace() {
    if (p.trace == nullptr || threadIdx.x != 0 || traced >= p.trace_capacity) return;
    p.trace[int64_t{blockIdx.x} * p.trace_capacity + traced++] = clock64();
  }

  __device__ __forceinline__ void Sync() { NamedSync<kConsumers>(); }
  // The phase's cells are written, and the scratch is free.
  __device__ __forceinline__ void Arrive() {
    Trace();
    if constexpr (kFlags) {
      Sync();
    } else {
      GridArrive<kConsumers>(&ws.header->barrier);
      target += p.blocks;
    }
    ++flag;
  }
  // Every block has arrived, and what it wrote is visible. Flags: nothing, whoever reads a cell
  // waits for it.
  __device__ __forceinline__ void Wait() {
    if constexpr (kFlags) return;
    GridWait<kConsumers>(&ws.header->barrier, target);
    Trace();
  }
  // Flags: this thread has the phase's inputs. Where Wait would be traced.
  __device__ __forceinline__ void Received() {
    if constexpr (kFlags) Trace();
  }
};

}  // namespace hgrn2::cuda::persistent
