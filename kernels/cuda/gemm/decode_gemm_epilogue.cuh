// What the product kernel does with its sums: docs/kernels/decode-gemm.md.
#pragma once

#include "kernels/cuda/async.cuh"
#include "kernels/cuda/gemm/decode_gemm_params.cuh"

#ifdef HGRN2_HAS_WGMMA
namespace hgrn2::cuda::gemm {
namespace {

// A thread's tokens, of the block's: two, which four lanes share.
__device__ __forceinline__ int TokenOf(int h) {
  return static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4 + h * 8;
}

// Adds what the four lanes of a token have.
__device__ __forceinline__ float SumOfLanes(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// What a token's sums are multiplied by, from partial sums of squares. They are asked for while the
// products begin and added up behind them: a lane has every fourth quad of its tokens' sums,
// kPrefetch of them early.
template <int kPrefetch, bool kFp8>
struct TokenScales {
  float4 v[2][kPrefetch > 0 ? kPrefetch : 1];
  float scale[2];
  // kFp8: DecodeGemmParams'.
  float residual_norm[2];
  uint32_t squares[2];

  static __device__ __forceinline__ int64_t Row(const Place& place, int h) {
    return place.token0 + min(TokenOf(h), place.tokens - 1);
  }
  __device__ __forceinline__ void Load(const KernelParams& p, const Place& place) {
    const int side = threadIdx.x % 4, parts = p.num_square_sums;
    const bool quads = p.square_sums != nullptr && parts % 4 == 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t token = Row(place, h);
      scale[h] = p.x_scale ? p.x_scale[token] : 1.0f;
      if constexpr (kFp8) {
        if (p.residual_norm) residual_norm[h] = p.residual_norm[token];
        if (p.squares) squares[h] = p.squares[token * kSquareStride];
      }
      const float* sums = p.square_sums + token * parts;
#pragma unroll
      for (int i = 0; i < kPrefetch; ++i) {
        const int part = (i * 4 + side) * 4;
        v[h][i] = quads && part < parts ? *reinterpret_cast<const float4*>(sums + part)
                                        : make_float4(0, 0, 0, 0);
      }
    }
  }
  __device__ __forceinline__ void Finish(const KernelParams& p, const Place& place) {
    if (p.square_sums == nullptr) return;
    const int side = threadIdx.x % 4, parts = p.num_square_sums;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kPrefetch; ++i) sum += (v[h][i].x + v[h][i].y) + (v[h][i].z + v[h][i].w);
      const float* sums = p.square_sums + Row(place, h) * parts;
      if (parts % 4 != 0) {
#pragma unroll 1
        for (int part = side; part < parts; part += 4) sum += sums[part];
      } else {
#pragma unroll 4
        for (int part = (kPrefetch * 4 + side) * 4; part < parts; part += 16) {
          const float4 more = *reinterpret_cast<const float4*>(sums + part);
          sum += (more.x + more.y) + (more.z + more.w);
        }
      }
      sum = SumOfLanes(sum);
      if constexpr (kFp8) {
        if (p.norm_out && place.row_tile == 0 && place.split == 0 && side == 0) {
          p.norm_out[Row(place, h)] = sqrtf(sum);
        }
      }
      scale[h] *= rsqrtf(sum / p.cols + p.eps);
    }
  }
  // The most that a token's residual can be, times the next norm's weight, over e4m3's greatest.
  __device__ __forceinline__ float OutScale(const KernelParams& p, int h) const {
    constexpr float kLeast = 1e-30f;
    const float square = p.squares ? static_cast<float>(squares[h]) * p.square_unit : p.cols,
                most = p.largest_next_norm *
                       (residual_norm[h] + kE4M3Rounding * p.largest_row_norm * sqrtf(square));
    return fmaxf(most, kLeast) / kMaxE4M3;
  }
};

// What an epilogue leaves for the next product.
template <bool kFp8>
using NextInput = std::conditional_t<kFp8, __nv_fp8_e4m3, __nv_bfloat16>;

// A thread's sums of 4 neighbouring rows and one token: rows 16 a + 4 (lane % 4), token lane / 4 +
// 8 h of its warp's 16. The weights' tensor map puts the rows where wgmma's fragment makes them
// neighbours.
template <int kRows>
__device__ __forceinline__ float4 Quad(const float (&sums)[kRows / 2], int a, int h) {
  return {sums[a * 8 + h * 2], sums[a * 8 + h * 2 + 1], sums[a * 8 + 4 + h * 2],
          sums[a * 8 + 5 + h * 2]};
}

// What a thread writes: its quads of the sixteens of rows that its block finishes. kParts: 2 for
// gate and up, which are finished together. Blocks of a split divide the sixteens of each part.
template <int kRows, int kSplit, int kParts>
struct Finished {
  static constexpr int kSixteens = kRows / 16 / kParts / kSplit;
  float4 v[kParts][kSixteens][2];
};

// Of a block that finishes its tile alone.
template <int kRows, int kParts>
__device__ __forceinline__ Finished<kRows, 1, kParts> AllOf(const float (&sums)[kRows / 2]) {
  Finished<kRows, 1, kParts> finished;
#pragma unroll
  for (int i = 0; i < kRows / 8; ++i) {
    finished.v[i / 2 / finished.kSixteens][i / 2 % finished.kSixteens][i % 2] =
        Quad<kRows>(sums, i / 2, i % 2);
  }
  return finished;
}

__device__ __forceinline__ void AddTo(float4& sum, const float4& v) {
  sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
}

// Blocks of a split send each other the sums that the other finishes: every thread its like's, by
// the copy engine, a warp at a time. `sent` and `received`: [block][warp][quad][lane], the block's
// own part beside what it sends, the senders' in the order of their ranks.
template <int kConsumers, int kRows, int kSplit, int kParts>
struct Exchange {
  using F = Finished<kRows, kSplit, kParts>;
  static constexpr int kQuads = kRows / 8 / kSplit, kWarps = kConsumers / 32,
                       kWarpBytes = kQuads * 32 * 16;

  float4* sent;
  float4* received;
  uint32_t bar;  // of the warp
  int rank;

  // Where the sums of `block` (a rank, or one of those received) begin for this thread.
  static __device__ __forceinline__ float4* At(float4* base, int block) {
    return base + (block * kWarps + static_cast<int>(threadIdx.x) / 32) * kQuads * 32 +
           threadIdx.x % 32;
  }
  __device__ __forceinline__ void Send(const float (&sums)[kRows / 2]) const {
#pragma unroll
    for (int s = 0; s < kSplit; ++s) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int i = 0; i < F::kSixteens * 2; ++i) {
          const int quad = (part * (kRows / 16 / kParts) + s * F::kSixteens) * 2 + i;
          At(sent, s)[(part * F::kSixteens * 2 + i) * 32] = Quad<kRows>(sums, quad / 2, quad % 2);
        }
      }
    }
    AsyncProxyFence();
    __syncwarp();
    if (threadIdx.x % 32 != 0) return;
    MbarrierExpect(bar, (kSplit - 1) * kWarpBytes);
    for (int s = 0; s < kSplit; ++s) {
      if (s != rank) {
        SendToPeer(At(received, rank < s ? rank : rank - 1), At(sent, s), kWarpBytes, bar, s);
      }
    }
  }
  // Parts are added in the order of their ranks.
  __device__ __forceinline__ void Receive(F& finished) const {
    MbarrierWait(bar, 0);
#pragma unroll
    for (int s = 0; s < kSplit; ++s) {
      const float4* theirs = s == rank ? At(sent, s) : At(received, s < rank ? s : s - 1);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int i = 0; i < F::kSixteens * 2; ++i) {
          const float4 v = theirs[(part * F::kSixteens * 2 + i) * 32];
          float4& sum = finished.v[part][i / 2][i % 2];
          if (s == 0) {
            sum = v;
          } else {
            AddTo(sum, v);
          }
        }
      }
    }
  }
};

// Where a thread's first quads go: a row of its tile (or of its half) and two tokens.
struct Output {
  int row;
  bool has[2];  // the token is not past the end
  void* out[2];
  float* residual[2];
  float* squares[2];

  template <int kRows, int kSplit, GemmEpilogue kEpilogue, bool kFp8>
  static __device__ __forceinline__ Output Of(const KernelParams& p, const Place& place) {
    constexpr bool kSwiGlu = kEpilogue == GemmEpilogue::kSwiGlu;
    constexpr int kTile = kSwiGlu ? kRows / 2 : kRows;
    const int width = kSwiGlu ? p.half_rows : p.rows;
    Output o;
    o.row = place.row_tile * kTile + kTile / kSplit * place.split +
            static_cast<int>(threadIdx.x) % 4 * 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      o.has[h] = TokenOf(h) < place.tokens;
      const int64_t token = place.token0 + TokenOf(h), at = token * width + o.row;
      constexpr int kNextBytes = sizeof(NextInput<kFp8>);
      const int bytes = kEpilogue != GemmEpilogue::kStore ? kNextBytes : p.out_f32 ? 4 : 2;
      o.out[h] = static_cast<char*>(p.out) + at * bytes;
      o.residual[h] = p.residual + at;
      o.squares[h] =
          p.square_sums_out + token * CeilDiv(p.rows, kSquareSumRows) + o.row / kSquareSumRows;
    }
    return o;
  }
};

__device__ __forceinline__ float4 Scaled(const float4& v, float scale, const float4& weight) {
  return {v.x * scale * weight.x, v.y * scale * weight.y, v.z * scale * weight.z,
          v.w * scale * weight.w};
}
// The weights' scales of a thread's quads, in shared memory; bfloat16: ones.
template <bool kFp8>
struct WeightScales {
  const float* first;  // of the first quad; kRows / 2 before up's if there are gate and up
  int half;

  __device__ __forceinline__ float4 Of(int part, int a) const {
    if constexpr (kFp8) return *reinterpret_cast<const float4*>(first + part * half + a * 16);
    return {1, 1, 1, 1};
  }
};

template <typename W, int kRows, int kSplit>
__device__ __forceinline__ void StoreSums(const KernelParams& p, const Output& out,
                                          const float (&scale)[2], const W& weights,
                                          const Finished<kRows, kSplit, 1>& finished) {
#pragma unroll
  for (int a = 0; a < finished.kSixteens; ++a) {
    const int row = out.row + a * 16;
    if (row >= p.rows) break;
    const float4 weight = weights.Of(0, a);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (!out.has[h]) continue;
      const float4 v = Scaled(finished.v[0][a][h], scale[h], weight);
      if (p.out_f32) {
        *reinterpret_cast<float4*>(static_cast<float*>(out.out[h]) + a * 16) = v;
      } else {
        Store4(static_cast<__nv_bfloat16*>(out.out[h]) + a * 16, v);
      }
    }
  }
}

__device__ __forceinline__ float FastSwish(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

__device__ __forceinline__ float SquareOf(const float4& v) {
  return (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
}

template <bool kFp8, typename W, int kRows, int kSplit>
__device__ __forceinline__ void StoreSwiGlu(const KernelParams& p, const Place& place,
                                            const Output& out, const float (&scale)[2],
                                            const W& weights,
                                            const Finished<kRows, kSplit, 2>& finished) {
  float square[2] = {};
#pragma unroll
  for (int a = 0; a < finished.kSixteens; ++a) {
    const int row = out.row + a * 16;
    if (row >= p.half_rows) break;
    const float4 gate = weights.Of(0, a), up = weights.Of(1, a);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (!out.has[h]) continue;
      const float4 g = Scaled(finished.v[0][a][h], scale[h], gate);
      const float4 u = Scaled(finished.v[1][a][h], scale[h], up);
      const auto act = [&]() -> float4 {
        return {FastSwish(g.x) * u.x, FastSwish(g.y) * u.y, FastSwish(g.z) * u.z,
                FastSwish(g.w) * u.w};
      };
      if constexpr (kFp8) {
        const float4 v = act();
        Store4(static_cast<__nv_fp8_e4m3*>(out.out[h]) + a * 16, v);
        square[h] += SquareOf(v);
      } else {
        Store4(static_cast<__nv_bfloat16*>(out.out[h]) + a * 16, act());
      }
    }
  }
  if constexpr (kFp8) {
    if (p.squares == nullptr) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      square[h] = SumOfLanes(square[h]);
      if (threadIdx.x % 4 != 0 || !out.has[h]) continue;
      atomicAdd(p.squares + int64_t{place.token0 + TokenOf(h)} * kSquareStride,
                static_cast<uint32_t>(fminf(ceilf(square[h] / p.square_unit), 2147483648.0f)));
    }
  }
}

// A thread's residual and next norm of 32 rows: two sixteens, of two tokens each.
struct ResidualItems {
  float4 x[2][2], norm[2];
  __device__ __forceinline__ void Load(const KernelParams& p, const Output& out, int pair) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int a = pair * 2 + i, row = out.row + a * 16;
      if (row >= p.rows) break;
      if (p.next_norm) norm[i] = *reinterpret_cast<const float4*>(p.next_norm + row);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (out.has[h]) x[i][h] = *reinterpret_cast<const float4*>(out.residual[h] + a * 16);
      }
    }
  }
};

// x += sums, and what the next product needs: x times its norm's weight, sums of 32 squares.
// FP8: times `factor`, of the token.
template <bool kFp8, typename W, int kRows, int kSplit>
__device__ __forceinline__ void AddToResidual(const KernelParams& p, const Output& out,
                                              const float (&scale)[2], const float (&factor)[2],
                                              const W& weights,
                                              const Finished<kRows, kSplit, 1>& finished,
                                              ResidualItems& items) {
  static_assert(kSquareSumRows == 32);
#pragma unroll
  for (int pair = 0; pair < finished.kSixteens / 2; ++pair) {
    if (out.row + pair * 32 >= p.rows) break;
    if (pair > 0) items.Load(p, out, pair);
    float square[2] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int a = pair * 2 + i, row = out.row + a * 16;
      if (row >= p.rows) break;
      const float4 weight = weights.Of(0, a);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (!out.has[h]) continue;
        float4 x = items.x[i][h];
        AddTo(x, Scaled(finished.v[0][a][h], scale[h], weight));
        *reinterpret_cast<float4*>(out.residual[h] + a * 16) = x;
        square[h] += SquareOf(x);
        if (p.next_norm) {
          const float4& norm = items.norm[i];
          float4 next = {x.x * norm.x, x.y * norm.y, x.z * norm.z, x.w * norm.w};
          if constexpr (kFp8) {
            next.x *= factor[h], next.y *= factor[h], next.z *= factor[h], next.w *= factor[h];
          }
          Store4(static_cast<NextInput<kFp8>*>(out.out[h]) + a * 16, next);
        }
      }
    }
    if (!p.next_norm) continue;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      square[h] = SumOfLanes(square[h]);
      if (threadIdx.x % 4 == 0 && out.has[h]) out.squares[h][pair] = square[h];
    }
  }
}

// What happens to a thread's finished sums.
template <GemmEpilogue kEpilogue, bool kFp8, typename Scales, typename W, typename F>
__device__ __forceinline__ void Finish(const KernelParams& p, const Place& place, const Output& out,
                                       const Scales& scales, const W& weights, const F& finished,
                                       ResidualItems& items) {
  if constexpr (kEpilogue == GemmEpilogue::kResidual) {
    float factor[2] = {1, 1};
    const bool first = place.row_tile == 0 && place.split == 0 && threadIdx.x % 4 == 0;
    if (kFp8 && p.next_norm) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float scale = scales.OutScale(p, h);
        factor[h] = 1.0f / scale;
        if (first && out.has[h]) p.out_scale[Scales::Row(place, h)] = scale;
      }
    }
    if (kFp8 && p.next_squares) {
#pragma unroll
      for (int h = 0; h < 2; ++h)
        if (first && out.has[h]) p.next_squares[Scales::Row(place, h) * kSquareStride] = 0;
    }
    AddToResidual<kFp8>(p, out, scales.scale, factor, weights, finished, items);
  } else if constexpr (kEpilogue == GemmEpilogue::kSwiGlu) {
    StoreSwiGlu<kFp8>(p, place, out, scales.scale, weights, finished);
  } else {
    StoreSums(p, out, scales.scale, weights, finished);
  }
}

}  // namespace
}  // namespace hgrn2::cuda::gemm
#endif  // HGRN2_HAS_WGMMA
