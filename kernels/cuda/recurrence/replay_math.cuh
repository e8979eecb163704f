// A warp's share of an item of the replay kernel: 32 channels (rows of the state), all columns.
//
// Lane = channel for gates and keys. Products run on tensor cores (mma.m16n8k16, float32 sums):
//   output   A = S_0^T (columns of V x rows of K), B = the rows' weights as two 16-bit parts in two
//            columns of B: the state's 16-bit or FP8 numbers enter exactly, the weights with 16
//            (bfloat16) or 22 bits (half).
//   fold     A = the keys decayed to now in two bfloat16 parts, B = the tokens' inputs, exact.
#pragma once

#include "kernels/cuda/recurrence/replay_stage.cuh"

namespace hgrn2::cuda::replay {

__device__ __forceinline__ void MmaF16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void MmaBf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Four 8 x 8 matrices of 16-bit numbers, transposed; lane l has the address of row l % 8 of matrix
// l / 8.
__device__ __forceinline__ void LoadTransposed(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ uint4 LoadShared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
__device__ __forceinline__ uint32_t Bits(__half2 x) { return *reinterpret_cast<uint32_t*>(&x); }
__device__ __forceinline__ uint32_t Bits(__nv_bfloat162 x) {
  return *reinterpret_cast<uint32_t*>(&x);
}
// Two e4m3 numbers in the low half of a word, as half: exact.
__device__ __forceinline__ uint32_t HalvesOfE4M3(uint32_t bits) {
  return Bits(
      __half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(bits), __NV_E4M3)));
}
// x as high part | low part << 16, low = (x - high) * kLowScale.
template <typename S>
inline constexpr float kLowScale = 2048.0f;  // keeps the low part of a small half normal
template <>
inline constexpr float kLowScale<__nv_bfloat16> = 1.0f;
template <typename S>
__device__ __forceinline__ uint32_t Split(float x) {
  if constexpr (std::is_same_v<S, __nv_bfloat16>) {
    const __nv_bfloat16 high = __float2bfloat16_rn(x);
    return Bits(__nv_bfloat162(high, __float2bfloat16_rn(x - __bfloat162float(high))));
  } else {
    const __half high = __float2half_rn(x);
    return Bits(__half2(high, __float2half_rn((x - __half2float(high)) * kLowScale<S>)));
  }
}

// Pointers of one item. Tokens count back from the current one, 0, to the ring's oldest, n.
template <typename S>
struct View {
  using L = Stage<S>;
  char* stage;
  const __nv_bfloat16* current;  // f | i of token 0
  __device__ __forceinline__ View(char* base, int n)
      : stage(base),
        current(reinterpret_cast<const __nv_bfloat16*>(base + L::kRing + n * L::kTokenBytes)) {}
  template <typename T>
  __device__ __forceinline__ T Get(int offset, int channel) const {
    return reinterpret_cast<const T*>(stage + offset)[channel];
  }
  __device__ __forceinline__ const __nv_bfloat16* Forgets(int token) const {
    return current - token * 2 * kDim;
  }
  __device__ __forceinline__ const __nv_bfloat16* Inputs(int token) const {
    return current + kDim - token * 2 * kDim;
  }
};

// A channel on its way from the newest token to the oldest.
struct Channel {
  float bound, span;
  float decay = 1.0f;  // product of the gates so far
};

// kCount tokens of a channel, the first `live` of which exist (kAll: all of them): their keys,
// decayed to now. A token that does not exist counts as a gate of exactly one.
template <int kCount, bool kAll>
__device__ __forceinline__ void KeysOf(Channel& c, const __nv_bfloat16* forgets, int live,
                                       float* keys) {
  Logistic gate[kCount];
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    float f = 1000.0f;
    if (kAll || j < live) f = ToFloat(forgets[-j * 2 * kDim]);
    gate[j] = LogisticOf<false>(f);
  }
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    keys[j * kKeyStride] = c.span * (gate[j].e * gate[j].r) * c.decay;
    c.decay *= fmaf(c.span, gate[j].r, c.bound);
  }
}

// A channel's factors of S_0.
struct Decayed {
  float weight;  // q * decay (* FP8 scale)
  float decay;   // since S_0 (* FP8 scale)
};

// Walks the tokens from the newest to the oldest with a running product of gates. Leaves the
// tokens' decayed keys (zeros up to the next multiple of 16 tokens on a fold) and q of the warp's
// channels in shared memory.
template <typename S>
__device__ __forceinline__ Decayed Gates(const View<S>& view, const Item& item, int channel,
                                         float* q_out, float* keys) {
  const int lane = threadIdx.x % 32, tokens = item.n + 1;
  Channel c;
  c.bound = view.template Get<float>(Stage<S>::kBound, channel), c.span = 1.0f - c.bound;
  const float q =
      SwishGate<false>(ToFloat(view.template Get<__nv_bfloat16>(Stage<S>::kQ, channel)));
  q_out[lane] = q;
  const __nv_bfloat16* forgets = view.Forgets(0) + channel;
  keys += lane;
  int left = tokens;
#pragma unroll 1
  for (; left >= 8; left -= 8) {
    KeysOf<8, true>(c, forgets, 8, keys);
    forgets -= 16 * kDim, keys += 8 * kKeyStride;
  }
  if (left >= 4) {
    KeysOf<4, true>(c, forgets, 4, keys);
    forgets -= 8 * kDim, keys += 4 * kKeyStride, left -= 4;
  }
  if (left > 0) {
    KeysOf<4, false>(c, forgets, left, keys);
    keys += 4 * kKeyStride;
  }
  if (item.fold) {
#pragma unroll 1
    for (int token = (tokens + 3) / 4 * 4; token % 16 != 0; ++token, keys += kKeyStride) *keys = 0;
  }
  const float scale =
      kIsFp8<S> && !item.reset ? view.template Get<float>(Stage<S>::kScales, channel) : 1.0f;
  return {q * c.decay * scale, c.decay * scale};
}

// scores[token] = q . key over this warp's channels, two lanes per token.
__device__ __forceinline__ void ScoreKeys(const float* q, const float* keys, int n, float* scores) {
  const int lane = threadIdx.x % 32, half = lane % 2 * (kRows / 2);
#pragma unroll 1
  for (int token = lane / 2; token - lane / 2 <= n; token += 16) {
    const float* key = keys + token * kKeyStride + half;
    float4 sum = {0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < kRows / 2; j += 4) {
      const float4 a = *reinterpret_cast<const float4*>(q + half + j);
      const float4 b = *reinterpret_cast<const float4*>(key + j);
      sum = {fmaf(a.x, b.x, sum.x), fmaf(a.y, b.y, sum.y), fmaf(a.z, b.z, sum.z),
             fmaf(a.w, b.w, sum.w)};
    }
    float score = (sum.x + sum.y) + (sum.z + sum.w);
    score += __shfl_xor_sync(0xffffffffu, score, 1);
    if (lane % 2 == 0) scores[token] = score;
  }
}

// The weights of this warp's rows as B operands of two k-steps, scaled so that the greatest is in
// [1, 2): `undo` is the power of two that was taken out.
struct Weights {
  uint32_t b[2][2];
  float undo;
};
template <typename S>
__device__ __forceinline__ Weights WeightsOf(float weight) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t largest = __reduce_max_sync(0xffffffffu, __float_as_uint(fabsf(weight)));
  const uint32_t exponent = min(max(largest >> 23, 1u), 253u);
  const uint32_t split = Split<S>(weight * __uint_as_float((254 - exponent) << 23));
  Weights w;
  w.undo = __uint_as_float(exponent << 23);
#pragma unroll
  for (int step = 0; step < 2; ++step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = step * 16 + half * 8 + 2 * t;
      const uint32_t first = __shfl_sync(0xffffffffu, split, row);
      const uint32_t second = __shfl_sync(0xffffffffu, split, row + 1);
      const uint32_t pair = __byte_perm(first, second, g == 0 ? 0x5410 : 0x7632);
      w.b[step][half] = g < 2 ? pair : 0;  // column 0: high parts, 1: low parts
    }
  }
  return w;
}

// partial[v] = sum over this warp's rows of weight * S_0. `state`: the stage's, `row0`: the first
// row.
__device__ __forceinline__ void MultiplyState(uint32_t state, int row0, const Weights& w,
                                              float* partial, __nv_fp8_e4m3) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float sum[8][4] = {};
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const uint32_t row = state + (row0 + step * 16 + 2 * t) * 128;
    const uint32_t even = row + ((g ^ (2 * t)) << 4), odd = row + 128 + ((g ^ (2 * t + 1)) << 4);
    // Columns 16 g .. 16 g + 15 of rows 2 t, 2 t + 1, 2 t + 8, 2 t + 9.
    const uint4 x0 = LoadShared16(even), x1 = LoadShared16(odd);
    const uint4 y0 = LoadShared16(even + 1024), y1 = LoadShared16(odd + 1024);
    const uint32_t xs[2][4] = {{x0.x, x0.y, x0.z, x0.w}, {x1.x, x1.y, x1.z, x1.w}};
    const uint32_t ys[2][4] = {{y0.x, y0.y, y0.z, y0.w}, {y1.x, y1.y, y1.z, y1.w}};
#pragma unroll
    for (int i = 0; i < 8; ++i) {  // columns 16 g + 2 i (rows g of A), 16 g + 2 i + 1 (rows g + 8)
      const uint32_t selector = i % 2 == 0 ? 0x5140 : 0x7362;
      const uint32_t x = __byte_perm(xs[0][i / 2], xs[1][i / 2], selector);
      const uint32_t y = __byte_perm(ys[0][i / 2], ys[1][i / 2], selector);
      const uint32_t a[4] = {HalvesOfE4M3(x & 0xffff), HalvesOfE4M3(x >> 16),
                             HalvesOfE4M3(y & 0xffff), HalvesOfE4M3(y >> 16)};
      MmaF16(sum[i], a, w.b[step][0], w.b[step][1]);
    }
  }
  if (t != 0) return;
  const float low = w.undo / kLowScale<__half>;
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const float4 v = {sum[i][0] * w.undo + sum[i][1] * low, sum[i][2] * w.undo + sum[i][3] * low,
                      sum[i + 1][0] * w.undo + sum[i + 1][1] * low,
                      sum[i + 1][2] * w.undo + sum[i + 1][3] * low};
    *reinterpret_cast<float4*>(partial + g * 16 + 2 * i) = v;
  }
}
template <typename S>
__device__ __forceinline__ void MultiplyState(uint32_t state, int row0, const Weights& w,
                                              float* partial, S) {
  static_assert(sizeof(S) == 2);
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float sum[8][4] = {};
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    // Lane l has the address of row l % 8 (+ 8 from lane 16 on), 8 columns (8 on in odd eighths).
    const int row = row0 + step * 16 + lane % 8 + lane / 16 * 8;
    const uint32_t at = state + row * 128, piece = (lane / 8 % 2) ^ (lane % 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) {  // columns 16 i + g (rows g of A), 16 i + 8 + g (rows g + 8)
      uint32_t a[4];
      LoadTransposed(at + i / 4 * Stage<S>::kBoxBytes + ((piece ^ (i % 4 * 2)) << 4), a);
      if constexpr (std::is_same_v<S, __nv_bfloat16>) {
        MmaBf16(sum[i], a, w.b[step][0], w.b[step][1]);
      } else {
        MmaF16(sum[i], a, w.b[step][0], w.b[step][1]);
      }
    }
  }
  if (t != 0) return;
  const float low = w.undo / kLowScale<S>;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    partial[i * 16 + g] = sum[i][0] * w.undo + sum[i][1] * low;
    partial[i * 16 + 8 + g] = sum[i][2] * w.undo + sum[i][3] * low;
  }
}

// Offset of columns 8 j + 2 t, + 1 in a row of the swizzled state whose number is g modulo 8.
template <typename S>
__device__ __forceinline__ uint32_t PairOffset(uint32_t g, uint32_t j, uint32_t t) {
  if constexpr (kIsFp8<S>) return (((j / 2) ^ g) << 4) + j % 2 * 8 + 2 * t;
  return j / 8 * Stage<S>::kBoxBytes + (((j % 8) ^ g) << 4) + 4 * t;
}
// Volatile: what decides about its use must not become a branch around each load.
template <typename S>
__device__ __forceinline__ uint32_t LoadPair(uint32_t address) {
  if constexpr (kIsFp8<S>) {
    uint16_t bits;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bits) : "r"(address) : "memory");
    return bits;
  } else {
    uint32_t bits;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(bits) : "r"(address) : "memory");
    return bits;
  }
}
template <typename S>
__device__ __forceinline__ float2 PairOf(uint32_t bits) {
  if constexpr (std::is_same_v<S, __nv_bfloat16>)
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&bits));
  if constexpr (kIsFp8<S>) bits = HalvesOfE4M3(bits);
  return __half22float2(*reinterpret_cast<const __half2*>(&bits));
}
template <typename S>
__device__ __forceinline__ void StorePair(char* at, float x, float y) {
  if constexpr (kIsFp8<S>) {
    *reinterpret_cast<uint16_t*>(at) =
        __nv_cvt_float2_to_fp8x2(make_float2(x, y), __NV_SATFINITE, __NV_E4M3);
  } else if constexpr (std::is_same_v<S, __half>) {
    *reinterpret_cast<__half2*>(at) = __floats2half2_rn(x, y);
  } else {
    *reinterpret_cast<__nv_bfloat162*>(at) = __floats2bfloat162_rn(x, y);
  }
}

// sum += keys (x) inputs for rows [row, row + 16) of the warp's, all tokens.
template <typename S>
__device__ __forceinline__ void AddTokens(const View<S>& view, int n, const float* keys, int row,
                                          float (&sum)[16][4]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll 1
  for (int first = 0; first <= n; first += 16) {
    uint32_t high[4], low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // rows g, g + 8; then eight tokens on
      const float* at = keys + (first + i / 2 * 8 + 2 * t) * kKeyStride + row + i % 2 * 8 + g;
      const float x = at[0], y = at[kKeyStride];
      const __nv_bfloat162 rounded = __floats2bfloat162_rn(x, y);
      const float2 back = __bfloat1622float2(rounded);
      high[i] = Bits(rounded);
      low[i] = Bits(__floats2bfloat162_rn(x - back.x, y - back.y));
    }
    // A token that does not exist has keys of zero; its inputs must be finite all the same.
    const uint32_t inputs = SharedAddress(view.Inputs(min(first + lane % 16, n)) + lane / 16 * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      uint32_t b[4];
      LoadTransposed(inputs + i * 32, b);
      MmaBf16(sum[2 * i], high, b[0], b[1]);
      MmaBf16(sum[2 * i], low, b[0], b[1]);
      MmaBf16(sum[2 * i + 1], high, b[2], b[3]);
      MmaBf16(sum[2 * i + 1], low, b[2], b[3]);
    }
  }
}

// FP8: brings a row, which four lanes share, to the range of e4m3; returns its scale.
__device__ __forceinline__ float ScaleRow(float (&sum)[16][4], int half) {
  float largest = 0;
#pragma unroll
  for (int j = 0; j < 16; ++j)
    largest = fmaxf(largest, fmaxf(fabsf(sum[j][2 * half]), fabsf(sum[j][2 * half + 1])));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
  const float inverse = largest > kLeastE4M3Row ? __fdividef(kMaxE4M3, largest) : 0.0f;
#pragma unroll
  for (int j = 0; j < 16; ++j) sum[j][2 * half] *= inverse, sum[j][2 * half + 1] *= inverse;
  return largest * (1.0f / kMaxE4M3);
}

// S_0 := diag(decay) S_0 + sum of keys (x) inputs for this warp's rows: rebuilt in place in the
// stage, then written out. `decay` is the lane's channel's.
template <typename S>
__device__ __forceinline__ void Fold(const View<S>& view, const Item& item, int row0, float decay,
                                     const float* keys, S* state, float* scales) {
  const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll 1
  for (int row = 0; row < kRows; row += 16) {
    const float decays[2] = {__shfl_sync(0xffffffffu, decay, row + g),
                             __shfl_sync(0xffffffffu, decay, row + g + 8)};
    char* base = view.stage + (row0 + row + g) * 128;
    uint32_t bits[16][2];
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        bits[j][half] = LoadPair<S>(SharedAddress(base) + half * 1024 + PairOffset<S>(g, j, t));
    }
    float sum[16][4];
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 x = PairOf<S>(item.reset ? 0 : bits[j][half]);
        sum[j][2 * half] = x.x * decays[half], sum[j][2 * half + 1] = x.y * decays[half];
      }
    }
    AddTokens(view, item.n, keys, row, sum);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if constexpr (kIsFp8<S>) {
        const float scale = ScaleRow(sum, half);
        if (t == 0) scales[row0 + row + g + half * 8] = scale;
      }
#pragma unroll
      for (int j = 0; j < 16; ++j)
        StorePair<S>(base + half * 1024 + PairOffset<S>(g, j, t), sum[j][2 * half],
                     sum[j][2 * half + 1]);
    }
  }
  __syncwarp();
  constexpr uint32_t kPieces = Stage<S>::kBoxes * 8;  // 16-byte pieces per row
#pragma unroll 8
  for (uint32_t i = lane; i < kRows * kPieces; i += 32) {
    const uint32_t row = row0 + i / kPieces, piece = i % kPieces;
    const uint4 v = LoadShared16(SharedAddress(view.stage) + piece / 8 * Stage<S>::kBoxBytes +
                                 row * 128 + ((piece % 8 ^ row % 8) << 4));
    __stcs(reinterpret_cast<uint4*>(state + row * kDim) + piece, v);
  }
  AsyncProxyFence();  // the stage's next bytes come through the copy engine
}

}  // namespace hgrn2::cuda::replay
