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
  float p0[256];                        // [K] product of the ring's gates
  float g[256], q[256];                 // [K] the current token's gate and scaled swish(q)
  float input[128];                     // [V] the current token's i
  float partial[kConsumerWarps * 128];  // [warp][column] sums over the warp's rows
  float weight[kMaxReplay * 128];       // [s][K] w_s
  __nv_bfloat16 i[kMaxReplay * 128];    // [s][column]
};
static_assert(sizeof(StateScratch) <= kScratchBytes);

// Where a sequence stands in its ring. See ReplayRing.
struct RingPosition {
  int index = 0;     // where this token goes
  int count = 0;     // tokens before it that the state does not have yet, at [index - count, index)
  bool fold = true;  // this step writes the state
};

__device__ __forceinline__ RingPosition PositionInRing(int age, int phase, int length) {
  RingPosition r;
  if (length <= 1 || age < 0) return r;
  r.index = (age + phase) % length;
  r.count = min(age, r.index);
  r.fold = r.index == length - 1;
  return r;
}

// Raw bytes of 4 columns of kRows rows, and their meaning. Kept apart so that a thread's loads all
// go out before the first is used. kNarrow: 16-bit types only, for half the registers.
template <int kRows, bool kNarrow>
struct RawState {
  uint2 v[kRows][kNarrow ? 1 : 2];

  __device__ __forceinline__ void Load(const void* base, int64_t at, int row_stride, DType type) {
    if (!kNarrow && type == DType::kF32) {
      const float* p = static_cast<const float*>(base) + at;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const uint4 u = __ldcg(reinterpret_cast<const uint4*>(p + r * row_stride));
        v[r][0] = {u.x, u.y};
        v[r][kNarrow ? 0 : 1] = {u.z, u.w};
      }
    } else {
      const uint16_t* p = static_cast<const uint16_t*>(base) + at;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        v[r][0] = __ldcg(reinterpret_cast<const uint2*>(p + r * row_stride));
      }
    }
  }
  __device__ __forceinline__ void Convert(DType type, float4 (&s)[kRows]) const {
    if (!kNarrow && type == DType::kF32) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const uint2 hi = v[r][kNarrow ? 0 : 1];
        s[r] = {__uint_as_float(v[r][0].x), __uint_as_float(v[r][0].y), __uint_as_float(hi.x),
                __uint_as_float(hi.y)};
      }
    } else if (type == DType::kF16) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&v[r][0].x));
        const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&v[r][0].y));
        s[r] = {a.x, a.y, b.x, b.y};
      }
    } else {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v[r][0].x));
        const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v[r][0].y));
        s[r] = {a.x, a.y, b.x, b.y};
      }
    }
  }
};

template <int kRows>
__device__ __forceinline__ void StoreState(void* base, int64_t at, int row_stride, DType type,
                                           const float4 (&s)[kRows]) {
  if (type == DType::kF32) {
    float* p = static_cast<float*>(base) + at;
#pragma unroll
    for (int r = 0; r < kRows; ++r) *reinterpret_cast<float4*>(p + r * row_stride) = s[r];
    return;
  }
  uint16_t* p = static_cast<uint16_t*>(base) + at;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    uint2 v;
    if (type == DType::kF16) {
      *reinterpret_cast<__half2*>(&v.x) = __floats2half2_rn(s[r].x, s[r].y);
      *reinterpret_cast<__half2*>(&v.y) = __floats2half2_rn(s[r].z, s[r].w);
    } else {
      *reinterpret_cast<__nv_bfloat162*>(&v.x) = __floats2bfloat162_rn(s[r].x, s[r].y);
      *reinterpret_cast<__nv_bfloat162*>(&v.y) = __floats2bfloat162_rn(s[r].z, s[r].w);
    }
    *reinterpret_cast<uint2*>(p + r * row_stride) = v;
  }
}

// Consecutive floats of shared memory, by the widest loads.
template <int kCount>
__device__ __forceinline__ void LoadRow(const float* p, float (&v)[kCount]) {
  if constexpr (kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 f = *reinterpret_cast<const float4*>(p + i);
      v[i] = f.x, v[i + 1] = f.y, v[i + 2] = f.z, v[i + 3] = f.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = p[i];
  }
}

__device__ __forceinline__ void AddScaled(float4& s, float w, float4 x) {
  s.x = __fmaf_rn(w, x.x, s.x);
  s.y = __fmaf_rn(w, x.y, s.y);
  s.z = __fmaf_rn(w, x.z, s.z);
  s.w = __fmaf_rn(w, x.w, s.w);
}
__device__ __forceinline__ void Add(float4& a, float4 b) {
  a = {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
}
__device__ __forceinline__ float4 Scaled(float w, float4 x) {
  return {__fmul_rn(w, x.x), __fmul_rn(w, x.y), __fmul_rn(w, x.z), __fmul_rn(w, x.w)};
}
// The gate of a logit, at least `bound`, and what it leaves to the input.
__device__ __forceinline__ float GateOf(float bound, uint16_t bf16_logit) {
  const float logit = __bfloat162float(__ushort_as_bfloat16(bf16_logit));
  return __fmaf_rn(__fsub_rn(1.0f, bound), Sigmoid(logit), bound);
}
__device__ __forceinline__ float Rest(float gate) { return __fsub_rn(1.0f, gate); }

// kDim = K = V; kRows rows per thread. kSlice follows: 8 warps x 32 lanes x kRows rows x 4 columns.
//
// Sums over rows always have one shape, whatever kRows, so that a result does not depend on how
// many sequences share the step: runs of kRun rows in order, then a binary tree over the runs of a
// warp's kDim / 8 rows, then the warps in order.
template <int kHeadDim, int kRowsPerThread>
struct StateTiling {
  static constexpr int kDim = kHeadDim;
  static constexpr int kRows = kRowsPerThread;
  static constexpr int kSlice = kConsumers * kRows * 4 / kDim;
  static constexpr int kSlices = kDim / kSlice;
  static constexpr int kQuads = kSlice / 4;  // column quads
  static constexpr int kRowsPerWarp = kDim / kConsumerWarps;
  static constexpr int kRun = kRowsPerWarp >= 8 ? kRowsPerWarp / 8 : 1;
  static constexpr int kRuns = kRows / kRun;  // per thread
  static constexpr bool kNarrow = kRows > 8;  // serves 16-bit states only
  // Registers per thread of the two kinds of warpgroups; together 384 x 168 at most.
  static constexpr int kConsumerRegisters = kRows > 8 ? 224 : kRows > 4 ? 216 : 208;
  static constexpr int kProducerRegisters = (3 * 168 - 2 * kConsumerRegisters) / 8 * 8;
  static_assert(kSlice >= 16 && kSlice <= 128 && kSlice <= kDim && kQuads <= 32);
  static_assert(kRows % kRun == 0);
};

template <typename S, bool kFlags>
struct StateUnit {
  static constexpr int kDim = S::kDim;
  static constexpr int kRows = S::kRows;
  static constexpr int kSlices = S::kSlices;
  // Tokens of the ring whose loads go out early; longer rings load the rest in Rebuild.
  static constexpr int kEarly = S::kNarrow ? 8 : 16;
  static constexpr int kInputs = (kEarly * S::kQuads + kConsumers - 1) / kConsumers;

  Context<kFlags>& c;
  const LayerPointers* layer = nullptr;
  StateScratch& scratch;
  int sequence = 0, head = 0, column0 = 0, slot = -1;
  bool reset = false;
  RingPosition ring;
  float4 state[kRows];
  // In flight between Load and Rebuild.
  RawState<kRows, S::kNarrow> raw;
  uint16_t gates[kEarly];  // of channel threadIdx.x, newest first
  // Constants of the layer, fetched before the grid barrier: behind it they would cost a round trip
  // to L2, because the barrier empties L1.
  float bound = 0;   // lower bound of channel threadIdx.x
  float weight = 0;  // g_norm of column threadIdx.x
  uint2 inputs[kInputs];

  __device__ __forceinline__ explicit StateUnit(Context<kFlags>& context)
      : c(context), scratch(*reinterpret_cast<StateScratch*>(context.scratch)) {}

  // Defines what Load and Rebuild may leave alone. Without it ptxas keeps old contents alive
  // through the whole step.
  __device__ __forceinline__ void ClearLoaded() {
    raw = {};
#pragma unroll
    for (uint2& input : inputs) input = {0, 0};
#pragma unroll
    for (uint16_t& gate : gates) gate = 0;
  }
  __device__ __forceinline__ void ClearState() {
#pragma unroll
    for (float4& row : state) row = {0, 0, 0, 0};
  }

  __device__ __forceinline__ static int Units(const DecodeParams& p) {
    return p.batch * p.heads * kSlices;
  }

  __device__ __forceinline__ void Bind(const LayerPointers& l, int unit) {
    layer = &l;
    const int pair = unit / kSlices;
    column0 = unit % kSlices * S::kSlice;
    sequence = pair / c.p.heads;
    head = pair % c.p.heads;
    slot = c.sequences[sequence].slot;
    const int age = c.sequences[sequence].age;
    reset = age < 0;
    ring = PositionInRing(age, layer->ring_phase, c.p.ring_length);
  }

  __device__ __forceinline__ int FirstRow() const {
    const int lane = threadIdx.x % 32;
    return threadIdx.x / 32 * S::kRowsPerWarp + lane / S::kQuads * kRows;
  }
  __device__ __forceinline__ int Quad() const { return threadIdx.x % 32 % S::kQuads; }
  // Of row `row`, this thread's columns.
  __device__ __forceinline__ int64_t StateAt(int row) const {
    return ((int64_t{slot} * c.p.heads + head) * kDim + row) * kDim + column0 + Quad() * 4;
  }
  __device__ __forceinline__ __nv_bfloat16* Ring(int index) const {  // f; i is kDim further
    return static_cast<__nv_bfloat16*>(layer->ring_entries) +
           ((int64_t{slot} * c.p.heads + head) * c.p.ring_length + index) * 2 * kDim;
  }

  // Fetches what Rebuild needs.
  __device__ __forceinline__ void Load() {
    if (threadIdx.x < kDim) bound = __ldg(layer->lower_bound + head * kDim + threadIdx.x);
    if (threadIdx.x < S::kSlice)
      weight = __ldg(layer->g_norm + head * kDim + column0 + threadIdx.x);
    if (slot < 0 || reset) return;
    raw.Load(layer->state, StateAt(FirstRow()), kDim, c.p.state_dtype);
    if (ring.count == 0) return;
    const __nv_bfloat16* newest = Ring(ring.index - 1);
#pragma unroll
    for (int i = 0; i < kInputs; ++i) {
      const int e = i * kConsumers + threadIdx.x, s = e / S::kQuads;
      if (s < ring.count) inputs[i] = LoadInput(newest, s, e % S::kQuads);
    }
    if (threadIdx.x >= kDim) return;
#pragma unroll
    for (int j = 0; j < kEarly; ++j) {
      if (j < ring.count) gates[j] = LoadGate(newest, j);
    }
  }
  // Of the s-th newest token of the ring.
  __device__ __forceinline__ uint2 LoadInput(const __nv_bfloat16* newest, int s, int quad) const {
    return __ldcg(reinterpret_cast<const uint2*>(newest - (2 * s - 1) * kDim + column0 + quad * 4));
  }
  __device__ __forceinline__ uint16_t LoadGate(const __nv_bfloat16* newest, int s) const {
    return __ldcg(reinterpret_cast<const uint16_t*>(newest - 2 * s * kDim + threadIdx.x));
  }

  // Everything that does not need the current token: `state` becomes S_{t-1}.
  __device__ __forceinline__ void Rebuild() {
    if (slot < 0 || reset) return ClearState();
    if (ring.count > 0) PrepareReplay();
    raw.Convert(c.p.state_dtype, state);
    if (ring.count == 0) return;
    c.Sync();
    Replay();
  }

  // The ring's inputs and, from its gates, the weights w_s and P_0 to scratch, newest token first.
  __device__ __forceinline__ void PrepareReplay() {
    const __nv_bfloat16* newest = Ring(ring.index - 1);
#pragma unroll
    for (int i = 0; i < kInputs; ++i) {
      const int e = i * kConsumers + threadIdx.x;
      if (e < min(ring.count, kEarly) * S::kQuads)
        reinterpret_cast<uint2*>(scratch.i)[e] = inputs[i];
    }
#pragma unroll 1
    for (int e = kEarly * S::kQuads + threadIdx.x; e < ring.count * S::kQuads; e += kConsumers) {
      reinterpret_cast<uint2*>(scratch.i)[e] = LoadInput(newest, e / S::kQuads, e % S::kQuads);
    }
    const int k = threadIdx.x;
    if (k >= kDim) return;
    const float lb = bound;
    float product = 1.0f;
    auto add = [&](int s, uint16_t f) {
      const float g = GateOf(lb, f);
      scratch.weight[s * kDim + k] = __fmul_rn(product, Rest(g));
      product = __fmul_rn(product, g);
    };
#pragma unroll
    for (int j = 0; j < kEarly; ++j) {
      if (j < ring.count) add(j, gates[j]);
    }
#pragma unroll 1
    for (int j = kEarly; j < ring.count; ++j) add(j, LoadGate(newest, j));
    scratch.p0[k] = product;
  }

  __device__ __forceinline__ float4 Input(const void* packed_bf16) const {
    const uint2 v = *static_cast<const uint2*>(packed_bf16);
    const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v.x));
    const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v.y));
    return {a.x, a.y, b.x, b.y};
  }

  // Rows go in groups: a thread's factors for all of them at once would cost too many registers.
  static constexpr int kStep = kRows < 4 ? kRows : 4;

  __device__ __forceinline__ void Replay() {
    const int row0 = FirstRow();
    float w[kStep];
#pragma unroll
    for (int r0 = 0; r0 < kRows; r0 += kStep) {
      LoadRow(scratch.p0 + row0 + r0, w);
#pragma unroll
      for (int r = 0; r < kStep; ++r) state[r0 + r] = Scaled(w[r], state[r0 + r]);
    }
#pragma unroll 1
    for (int s = ring.count - 1; s >= 0; --s) {
      const float4 x = Input(scratch.i + s * S::kSlice + Quad() * 4);
#pragma unroll
      for (int r0 = 0; r0 < kRows; r0 += kStep) {
        LoadRow(scratch.weight + s * kDim + row0 + r0, w);
#pragma unroll
        for (int r = 0; r < kStep; ++r) AddScaled(state[r0 + r], w[r], x);
      }
    }
  }

  // The current token's q, f and i, to scratch and ring. Flags: those of padding are waited for
  // too, since what they are overwritten with must not come before they were read.
  __device__ __forceinline__ void Receive() {
    static_assert(2 * kDim <= kConsumers);
    const int pairs = static_cast<int>(c.p.shape.d) / 2, k = threadIdx.x % kDim;
    const uint32_t written = c.flag - 1;
    const Cell<kFlags>* q = c.ws.qfi + sequence * c.ws.stride + (head * kDim + k) / 2;
    if (threadIdx.x < kDim) {
      const Cell<kFlags>*f_at = q + pairs, *i_at = f_at + pairs;
      Cell<kFlags> f = LoadCell(f_at), i = LoadCell(i_at);
      Await(f_at, written, f);
      Await(i_at, written, i);
      const uint16_t f_bits = Bf16Half(f.bits, k), i_bits = Bf16Half(i.bits, k);
      scratch.g[k] = GateOf(bound, f_bits);
      scratch.input[k] = __bfloat162float(__ushort_as_bfloat16(i_bits));
      if (slot >= 0 && !ring.fold && column0 == 0) {
        Ring(ring.index)[k] = __ushort_as_bfloat16(f_bits);
        Ring(ring.index)[kDim + k] = __ushort_as_bfloat16(i_bits);
      }
    } else if (threadIdx.x < 2 * kDim) {
      Cell<kFlags> v = LoadCell(q);
      Await(q, written, v);
      const float x = __bfloat162float(__ushort_as_bfloat16(Bf16Half(v.bits, k)));
      scratch.q[k] = __fmul_rn(Swish(x), rsqrtf(static_cast<float>(kDim)));
    }
  }

  // State step, output, and the write of the state.
  __device__ __forceinline__ void Step() {
    c.Sync();
    if (slot >= 0) Advance();
    c.Sync();
    Output();
  }

  __device__ __forceinline__ void Advance() {
    const float4 input = *reinterpret_cast<const float4*>(scratch.input + column0 + Quad() * 4);
    const int row0 = FirstRow();
    // partial[i]: the sum of a complete binary subtree of 2^i runs, combined as soon as its twin
    // is.
    float4 partial[5], run = {0, 0, 0, 0};
#pragma unroll
    for (int r0 = 0; r0 < kRows; r0 += kStep) {
      float g[kStep], q[kStep];
      LoadRow(scratch.g + row0 + r0, g);
      LoadRow(scratch.q + row0 + r0, q);
#pragma unroll
      for (int j = 0; j < kStep; ++j) {
        const int r = r0 + j;
        float4& s = state[r];
        s = Scaled(g[j], s);
        AddScaled(s, Rest(g[j]), input);
        if (r % S::kRun == 0) run = {0, 0, 0, 0};
        AddScaled(run, q[j], s);
        if (r % S::kRun != S::kRun - 1) continue;
        int level = 0;
#pragma unroll
        for (int n = r / S::kRun; n % 2 == 1; n /= 2) {
          float4 sum = partial[level++];
          Add(sum, run);
          run = sum;
        }
        partial[level] = run;
      }
    }
    if (ring.fold) StoreState(layer->state, StateAt(row0), kDim, c.p.state_dtype, state);
#pragma unroll
    for (int mask = S::kQuads; mask < 32; mask *= 2) {
      Add(run,
          {__shfl_xor_sync(0xffffffffu, run.x, mask), __shfl_xor_sync(0xffffffffu, run.y, mask),
           __shfl_xor_sync(0xffffffffu, run.z, mask), __shfl_xor_sync(0xffffffffu, run.w, mask)});
    }
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane < S::kQuads) {
      *reinterpret_cast<float4*>(scratch.partial + warp * S::kSlice + lane * 4) = run;
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
      for (int w = 0; w < kConsumerWarps; ++w) {
        o = __fadd_rn(o, scratch.partial[w * S::kSlice + column]);
      }
    }
    float squares = __fmul_rn(o, o);
#pragma unroll
    for (int mask = 1; mask < kSquareGroup; mask *= 2) {
      squares = __fadd_rn(squares, __shfl_xor_sync(0xffffffffu, squares, mask));
    }
    const float carry = c.p.shape.fp8 ? kFp8ActivationScale : 1.0f;
    const float in = __fmul_rn(__fmul_rn(o, weight), carry);
    const float next = __shfl_xor_sync(0xffffffffu, in, 1);
    if (column >= S::kSlice || column % 2 != 0) return;
    const int row = sequence * c.ws.stride;
    StoreCell(c.ws.o_in + row + channel / 2, PackPair(in, next), c.flag);
    if (column % kSquareGroup == 0) {
      StoreCell(c.ws.o_squares + row + channel / kSquareGroup, __float_as_uint(squares), c.flag);
    }
  }
};

__device__ __forceinline__ void PrefetchSectors(const void* base, int bytes, int lane) {
  for (int at = lane * 32; at < bytes; at += 32 * 32) {
    PrefetchL2(static_cast<const uint8_t*>(base) + at);
  }
}

// One warp: fetches into L2 what the block's share of a layer's recurrence will read.
template <typename S>
__device__ __forceinline__ void PrefetchStates(const DecodeParams& p, const LayerPointers& layer) {
  const int lane = threadIdx.x % 32;
  const int bytes = static_cast<int>(SizeOf(p.state_dtype));
  const int row_bytes = S::kSlice * bytes, row_sectors = row_bytes / 32;
#pragma unroll 1
  for (int unit = blockIdx.x; unit < p.batch * p.heads * S::kSlices; unit += p.blocks) {
    const int pair = unit / S::kSlices, sequence = pair / p.heads, head = pair % p.heads;
    const int slot = p.slots[sequence];
    if (slot < 0 || (p.reset != nullptr && p.reset[sequence] != 0)) continue;
    const int64_t at = int64_t{slot} * p.heads + head;
    const uint8_t* state = static_cast<const uint8_t*>(layer.state) +
                           (at * S::kDim * S::kDim + unit % S::kSlices * S::kSlice) * bytes;
#pragma unroll 1
    for (int i = lane; i < S::kDim * row_sectors; i += 32) {
      PrefetchL2(state + i / row_sectors * S::kDim * bytes + i % row_sectors * 32);
    }
    PrefetchSectors(layer.lower_bound + head * S::kDim, S::kDim * 4, lane);
    PrefetchSectors(layer.g_norm + head * S::kDim, S::kDim * 4, lane);
    if (p.ring_length <= 1) continue;
    const RingPosition ring = PositionInRing(p.age[slot], layer.ring_phase, p.ring_length);
    PrefetchSectors(static_cast<const __nv_bfloat16*>(layer.ring_entries) +
                        (at * p.ring_length + ring.index - ring.count) * 2 * S::kDim,
                    ring.count * 4 * S::kDim, lane);
  }
}

// The block's share, with the wait for q, f and i inside. kLoaded: `first` is bound to the block's
// first unit, if it has any, and its loads are under way.
template <bool kLoaded, typename S, bool kFlags>
__device__ __forceinline__ void RunStates(Context<kFlags>& c, const LayerPointers& layer,
                                          StateUnit<S, kFlags>& first) {
  const int units = first.Units(c.p);
  int unit = blockIdx.x;
  if (!kLoaded) first.ClearLoaded();
  first.ClearState();
  if (unit < units) {
    if (!kLoaded) {
      first.Bind(layer, unit);
      first.Load();
    }
    first.Rebuild();
  }
  c.Wait();
  if (unit < units) first.Receive();
  c.Received();
#pragma unroll 1
  while (unit < units) {
    first.Step();
    unit += c.p.blocks;
    if (unit >= units) break;
    c.Sync();
    first.Bind(layer, unit);
    first.Load();
    first.Rebuild();
    first.Receive();
  }
}

}  // namespace hgrn2::cuda::persistent
