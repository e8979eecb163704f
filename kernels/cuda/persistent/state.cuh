// The recurrence inside the persistent kernel: gates, state step (plain or replay), output.
//
// A unit of work is (sequence, head, kSlice columns of V). Columns do not interact, so the only
// exchange is the sum over rows inside the block. A thread holds 4 columns of kRows rows of the
// unit's state in registers.
//
// Replay: the state before this token is rebuilt in registers from S_0 and the ring's n tokens,
//   S = diag(P_0) S_0 + sum_s w_s (x) i_s,  P_s = prod_{r > s} g_r,  w_s = P_s (1 - g_s),
// which needs nothing of the current token and so is done while other blocks still compute its q, f
// and i; the step itself is then the plain one. The state is written only on the token that folds.
#pragma once

#include <cuda_fp16.h>

#include "kernels/cuda/persistent/context.cuh"

namespace hgrn2::cuda::persistent {

// Scratch of one unit, inside Context::scratch.
struct StateScratch {
  float p0[256];                   // [K] product of the ring's gates
  float g[256], q[256];            // [K] the current token's gate and scaled swish(q)
  float partial[kConsumerWarps * 128];      // [warp][column] sums over the warp's rows
  float weight[kMaxReplay * 128];           // [s][K] w_s
  __nv_bfloat16 i[kMaxReplay * 128];        // [s][column]
};
static_assert(sizeof(StateScratch) <= kScratchBytes);

// Where a sequence stands in its ring. See ReplayRing.
struct RingPosition {
  int index = 0;   // where this token goes
  int count = 0;   // tokens before it that the state does not have yet, at [index - count, index)
  bool fold = true;  // this step writes the state
};

__device__ __forceinline__ RingPosition PositionInRing(const DecodeParams& p, int slot, int phase,
                                                       bool reset) {
  RingPosition r;
  if (p.ring_length <= 1 || reset) return r;
  const int age = p.age[slot];
  r.index = (age + phase) % p.ring_length;
  r.count = min(age, r.index);
  r.fold = r.index == p.ring_length - 1;
  return r;
}

__device__ __forceinline__ float4 LoadState4(const void* base, int64_t at, DType type) {
  if (type == DType::kF32) {
    return __ldcg(reinterpret_cast<const float4*>(static_cast<const float*>(base) + at));
  }
  const uint2 v =
      __ldcg(reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(base) + at));
  float2 a, b;
  if (type == DType::kF16) {
    a = __half22float2(*reinterpret_cast<const __half2*>(&v.x));
    b = __half22float2(*reinterpret_cast<const __half2*>(&v.y));
  } else {
    a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v.x));
    b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v.y));
  }
  return {a.x, a.y, b.x, b.y};
}

__device__ __forceinline__ void StoreState4(void* base, int64_t at, DType type, float4 s) {
  if (type == DType::kF32) {
    *reinterpret_cast<float4*>(static_cast<float*>(base) + at) = s;
    return;
  }
  uint2 v;
  if (type == DType::kF16) {
    *reinterpret_cast<__half2*>(&v.x) = __floats2half2_rn(s.x, s.y);
    *reinterpret_cast<__half2*>(&v.y) = __floats2half2_rn(s.z, s.w);
  } else {
    *reinterpret_cast<__nv_bfloat162*>(&v.x) = __floats2bfloat162_rn(s.x, s.y);
    *reinterpret_cast<__nv_bfloat162*>(&v.y) = __floats2bfloat162_rn(s.z, s.w);
  }
  *reinterpret_cast<uint2*>(static_cast<uint16_t*>(base) + at) = v;
}

__device__ __forceinline__ float LoadBf16(const __nv_bfloat16* p) {
  return __bfloat162float(__ushort_as_bfloat16(__ldcg(reinterpret_cast<const uint16_t*>(p))));
}

// kDim = K = V; kRows rows per thread. kSlice follows: 8 warps x 32 lanes x kRows rows x 4 columns.
//
// Sums over rows always have one shape, whatever kRows, so that a result does not depend on how many
// sequences share the step: runs of kRun rows in order, then a binary tree over the runs of a warp's
// kDim / 8 rows, then the warps in order.
template <int kDim, int kRows>
struct StateTiling {
  static constexpr int kSlice = kConsumers * kRows * 4 / kDim;
  static constexpr int kQuads = kSlice / 4;              // column quads
  static constexpr int kRowsPerWarp = kDim / kConsumerWarps;
  static constexpr int kRun = kRowsPerWarp >= 8 ? kRowsPerWarp / 8 : 1;
  static constexpr int kRuns = kRows / kRun;             // per thread
  static_assert(kSlice >= 16 && kSlice <= 128 && kSlice <= kDim && kQuads <= 32);
  static_assert(kRows % kRun == 0);
};

template <int kDim, int kRows>
struct StateUnit {
  using S = StateTiling<kDim, kRows>;

  Context& c;
  const LayerPointers& layer;
  StateScratch& scratch;
  int sequence, head, column0, slot;
  bool reset;
  RingPosition ring;
  float4 state[kRows];

  __device__ __forceinline__ StateUnit(Context& context, const LayerPointers& l, int unit)
      : c(context), layer(l), scratch(*reinterpret_cast<StateScratch*>(context.scratch)) {
    constexpr int kSlices = kDim / S::kSlice;
    sequence = unit / (kSlices * c.p.heads);
    head = unit / kSlices % c.p.heads;
    column0 = unit % kSlices * S::kSlice;
    slot = __ldg(c.p.slots + sequence);
    reset = c.p.reset != nullptr && c.p.reset[sequence] != 0;
    if (slot >= 0) ring = PositionInRing(c.p, slot, layer.ring_phase, reset);
  }

  __device__ int FirstRow() const {
    const int lane = threadIdx.x % 32;
    return threadIdx.x / 32 * S::kRowsPerWarp + lane / S::kQuads * kRows;
  }
  __device__ int Column() const { return column0 + threadIdx.x % 32 % S::kQuads * 4; }
  __device__ int64_t StateAt(int row) const {
    return ((int64_t{slot} * c.p.heads + head) * kDim + row) * kDim + Column();
  }
  __device__ __nv_bfloat16* Ring(int index, int which) const {
    return static_cast<__nv_bfloat16*>(layer.ring_entries) +
           (((int64_t{slot} * c.p.heads + head) * c.p.ring_length + index) * 2 + which) * kDim;
  }
  __device__ float Gate(float f, int k) const {
    const float lb = __ldg(layer.lower_bound + head * kDim + k);
    return lb + (1.0f - lb) * Sigmoid(f);
  }

  // Everything that does not need the current token: `state` becomes S_{t-1}.
  __device__ __forceinline__ void Rebuild() {
    if (slot < 0) return;
    if (reset) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) state[r] = {0, 0, 0, 0};
      return;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      state[r] = LoadState4(layer.state, StateAt(FirstRow() + r), c.p.state_dtype);
    }
    if (ring.count == 0) return;
    LoadRing();
    c.Sync();
    Replay();
  }

  __device__ __forceinline__ void LoadRing() {
    const int first = ring.index - ring.count;
    for (int e = threadIdx.x; e < ring.count * S::kQuads; e += kConsumers) {
      const int s = e / S::kQuads, quad = e % S::kQuads;
      *reinterpret_cast<uint2*>(scratch.i + s * S::kSlice + quad * 4) =
          __ldcg(reinterpret_cast<const uint2*>(Ring(first + s, 1) + column0 + quad * 4));
    }
    const int k = threadIdx.x;
    if (k >= kDim) return;
    const float lb = __ldg(layer.lower_bound + head * kDim + k);
    float product = 1.0f;
    // From the newest token back, 8 loads at a time in flight.
    for (int end = ring.count; end > 0; end -= 8) {
      float f[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) f[j] = end - 1 - j >= 0 ? LoadBf16(Ring(first + end - 1 - j, 0) + k) : 0;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (end - 1 - j >= 0) {
          const float g = lb + (1.0f - lb) * Sigmoid(f[j]);
          scratch.weight[(end - 1 - j) * kDim + k] = product * (1.0f - g);
          product *= g;
        }
      }
    }
    scratch.p0[k] = product;
  }

  __device__ __forceinline__ void Replay() {
    const int row0 = FirstRow(), quad = threadIdx.x % 32 % S::kQuads;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float p = scratch.p0[row0 + r];
      state[r].x *= p, state[r].y *= p, state[r].z *= p, state[r].w *= p;
    }
    for (int s = 0; s < ring.count; ++s) {
      const uint2 packed = *reinterpret_cast<const uint2*>(scratch.i + s * S::kSlice + quad * 4);
      const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&packed.x));
      const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&packed.y));
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float w = scratch.weight[s * kDim + row0 + r];
        state[r].x = fmaf(w, a.x, state[r].x);
        state[r].y = fmaf(w, a.y, state[r].y);
        state[r].z = fmaf(w, b.x, state[r].z);
        state[r].w = fmaf(w, b.y, state[r].w);
      }
    }
  }

  // The current token: state step, output, and the write of state or ring.
  __device__ __forceinline__ void Step() {
    const __nv_bfloat16* qfi = c.ws.qfi + int64_t{sequence} * 3 * c.p.shape.d + head * kDim;
    const int k = threadIdx.x;
    float4 input = {0, 0, 0, 0};
    if (slot >= 0) {
      const uint2 packed =
          __ldcg(reinterpret_cast<const uint2*>(qfi + 2 * c.p.shape.d + Column()));
      const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&packed.x));
      const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&packed.y));
      input = {a.x, a.y, b.x, b.y};
      if (k < kDim) {
        const float f = LoadBf16(qfi + c.p.shape.d + k);
        const float i = LoadBf16(qfi + 2 * c.p.shape.d + k);
        scratch.g[k] = Gate(f, k);
        scratch.q[k] = Swish(LoadBf16(qfi + k)) * rsqrtf(static_cast<float>(kDim));
        if (!ring.fold && column0 == 0) {
          Ring(ring.index, 0)[k] = __float2bfloat16(f);
          Ring(ring.index, 1)[k] = __float2bfloat16(i);
        }
      }
    }
    c.Sync();
    if (slot >= 0) Advance(input);
    c.Sync();
    Output();
  }

  __device__ __forceinline__ void Advance(float4 input) {
    const int row0 = FirstRow();
    float4 run[S::kRuns];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float g = scratch.g[row0 + r], q = scratch.q[row0 + r], k = 1.0f - g;
      float4& s = state[r];
      s.x = fmaf(g, s.x, k * input.x);
      s.y = fmaf(g, s.y, k * input.y);
      s.z = fmaf(g, s.z, k * input.z);
      s.w = fmaf(g, s.w, k * input.w);
      float4& o = run[r / S::kRun];
      if (r % S::kRun == 0) o = {0, 0, 0, 0};
      o.x = fmaf(q, s.x, o.x);
      o.y = fmaf(q, s.y, o.y);
      o.z = fmaf(q, s.z, o.z);
      o.w = fmaf(q, s.w, o.w);
    }
    if (ring.fold) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        StoreState4(layer.state, StateAt(row0 + r), c.p.state_dtype, state[r]);
      }
    }
#pragma unroll
    for (int step = 1; step < S::kRuns; step *= 2) {
#pragma unroll
      for (int r = 0; r + step < S::kRuns; r += 2 * step) {
        run[r].x += run[r + step].x;
        run[r].y += run[r + step].y;
        run[r].z += run[r + step].z;
        run[r].w += run[r + step].w;
      }
    }
#pragma unroll
    for (int mask = S::kQuads; mask < 32; mask *= 2) {
      run[0].x += __shfl_xor_sync(0xffffffffu, run[0].x, mask);
      run[0].y += __shfl_xor_sync(0xffffffffu, run[0].y, mask);
      run[0].z += __shfl_xor_sync(0xffffffffu, run[0].z, mask);
      run[0].w += __shfl_xor_sync(0xffffffffu, run[0].w, mask);
    }
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane < S::kQuads) {
      *reinterpret_cast<float4*>(scratch.partial + warp * S::kSlice + lane * 4) = run[0];
    }
  }

  // o times g_norm's weight, as the next product's activations, and its sums of squares.
  __device__ __forceinline__ void Output() {
    const int column = threadIdx.x;
    if (column >= (S::kSlice + 31) / 32 * 32) return;  // whole warps: the shuffles below
    float o = 0;
    const int channel = head * kDim + column0 + column;
    if (column < S::kSlice && slot >= 0) {
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) o += scratch.partial[w * S::kSlice + column];
    }
    float squares = o * o;
#pragma unroll
    for (int mask = 1; mask < kSumSquareGroup; mask *= 2) {
      squares += __shfl_xor_sync(0xffffffffu, squares, mask);
    }
    if (column >= S::kSlice) return;
    const int64_t d = c.p.shape.d;
    const float scale = c.p.shape.fp8 ? kFp8ActivationScale : 1.0f;
    c.ws.o_in[sequence * d + channel] =
        __float2bfloat16(o * __ldg(layer.g_norm + channel) * scale);
    if (column % kSumSquareGroup == 0) {
      c.ws.o_squares[sequence * (d / kSumSquareGroup) + channel / kSumSquareGroup] = squares;
    }
  }
};

// The block's share of a layer's recurrence, with the grid barrier that waits for q, f and i inside.
template <int kDim, int kRows>
__device__ __forceinline__ void RunState(Context& c, const LayerPointers& layer) {
  constexpr int kSlices = kDim / StateTiling<kDim, kRows>::kSlice;
  const int units = c.p.batch * c.p.heads * kSlices;
  bool waited = false;
  for (int unit = blockIdx.x; unit < units; unit += c.p.blocks) {
    StateUnit<kDim, kRows> work(c, layer, unit);
    work.Rebuild();
    if (!waited) c.Wait();
    waited = true;
    work.Step();
    c.Sync();
  }
  if (!waited) c.Wait();
}

// Picks the widest slice that still gives every block work: fewer, larger units share the ring's
// gates among more columns.
__device__ __forceinline__ void RunStates(Context& c, const LayerPointers& layer) {
  const int pairs = c.p.batch * c.p.heads;
  const int blocks = c.p.blocks;
  switch (c.p.head_dim) {
    case 32: return RunState<32, 1>(c, layer);
    case 64:
      if (pairs * 4 <= blocks) return RunState<64, 1>(c, layer);
      if (pairs * 2 <= blocks) return RunState<64, 2>(c, layer);
      return RunState<64, 4>(c, layer);
    case 128:
      if (pairs * 8 <= blocks) return RunState<128, 2>(c, layer);
      if (pairs * 4 <= blocks) return RunState<128, 4>(c, layer);
      if (pairs * 2 <= blocks) return RunState<128, 8>(c, layer);
      return RunState<128, 16>(c, layer);
    default: return;
  }
}

}  // namespace hgrn2::cuda::persistent
