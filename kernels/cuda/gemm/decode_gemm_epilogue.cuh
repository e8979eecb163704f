// What the product kernel does with its sums: docs/kernels/decode-gemm.md.
#pragma once

#include <cooperative_groups.h>

#include "kernels/cuda/gemm/decode_gemm_params.cuh"

#ifdef HGRN2_HAS_WGMMA
namespace hgrn2::cuda::gemm {
namespace {

// What a token's sums are multiplied by. One warp's work, beside the products: four lanes a token,
// of four groups of tokens at a time, so that 8 KB are on their way before the first is added.
__device__ __forceinline__ void TokenScales(const KernelParams& p, const Place& place,
                                            float* scales) {
  constexpr int kTokens = 8, kGroups = 4, kBatch = 4;
  const int lane = threadIdx.x % 32, side = lane % 4, parts = p.num_square_sums;
#pragma unroll 1
  for (int base = 0; base < place.tokens; base += kTokens * kGroups) {
    float sum[kGroups] = {}, scale[kGroups];
    int64_t token[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      token[g] = place.token0 + min(base + g * kTokens + lane / 4, place.tokens - 1);
      scale[g] = p.x_scale ? p.x_scale[token[g]] : 1.0f;
    }
    if (p.square_sums && parts % 4 != 0) {
#pragma unroll 1
      for (int part = side; part < parts; part += 4) {
#pragma unroll
        for (int g = 0; g < kGroups; ++g) sum[g] += p.square_sums[token[g] * parts + part];
      }
    } else if (p.square_sums) {
#pragma unroll 1
      for (int first = side * 4; first < parts; first += kBatch * 16) {
        float4 v[kGroups][kBatch];
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            const int part = first + i * 16;
            v[g][i] =
                part < parts
                    ? *reinterpret_cast<const float4*>(p.square_sums + token[g] * parts + part)
                    : make_float4(0, 0, 0, 0);
          }
        }
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            sum[g] += (v[g][i].x + v[g][i].y) + (v[g][i].z + v[g][i].w);
          }
        }
      }
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int t = base + g * kTokens + lane / 4;
      sum[g] += __shfl_xor_sync(0xffffffffu, sum[g], 1);
      sum[g] += __shfl_xor_sync(0xffffffffu, sum[g], 2);
      if (p.square_sums) scale[g] *= rsqrtf(sum[g] / p.cols + p.eps);
      if (side == 0 && t < place.tokens) scales[t] = scale[g];
    }
  }
}

__device__ __forceinline__ void Store4(__nv_bfloat16* to, const float4& v) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(v.x, v.y),
                       high = __floats2bfloat162_rn(v.z, v.w);
  uint2 packed;
  packed.x = reinterpret_cast<const uint32_t&>(low);
  packed.y = reinterpret_cast<const uint32_t&>(high);
  *reinterpret_cast<uint2*>(to) = packed;
}

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

__device__ __forceinline__ void AddTo(float4& sum, const float4& v) {
  sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
}

// Every block's sums in its shared memory, [quad][thread]: each thread meets its like in the other
// blocks at the same place.
template <int kRows>
__device__ __forceinline__ void StorePartial(const float (&sums)[kRows / 2], float4* partial,
                                             int consumers) {
#pragma unroll
  for (int i = 0; i < kRows / 8; ++i) {
    partial[i * consumers + threadIdx.x] = Quad<kRows>(sums, i / 2, i % 2);
  }
}
// Parts are added in the order of their ranks.
template <int kConsumers, int kRows, int kSplit, int kParts>
__device__ __forceinline__ void Collect(const cooperative_groups::cluster_group& cluster,
                                        float4* partial, int rank,
                                        Finished<kRows, kSplit, kParts>& finished) {
  using F = Finished<kRows, kSplit, kParts>;
#pragma unroll
  for (int s = 0; s < kSplit; ++s) {
    const float4* theirs = cluster.map_shared_rank(partial, s) + threadIdx.x;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int i = 0; i < F::kSixteens * 2; ++i) {
        const int quad = (part * (kRows / 16 / kParts) + rank * F::kSixteens) * 2 + i;
        const float4 v = theirs[quad * kConsumers];
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

// Where a thread's first quads go: a row of its tile (or of its half) and two tokens.
struct Output {
  int row;
  bool has[2];  // the token is not past the end
  float scale[2];
  void* out[2];
  float* residual[2];
  float* squares[2];

  static __device__ __forceinline__ int Token(int h) {  // of the block
    return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + h * 8;
  }
  template <int kRows, int kSplit, GemmEpilogue kEpilogue>
  static __device__ __forceinline__ Output Of(const KernelParams& p, const Place& place) {
    constexpr bool kSwiGlu = kEpilogue == GemmEpilogue::kSwiGlu;
    constexpr int kTile = kSwiGlu ? kRows / 2 : kRows;
    const int width = kSwiGlu ? p.half_rows : p.rows;
    Output o;
    o.row = place.row_tile * kTile + kTile / kSplit * place.split +
            static_cast<int>(threadIdx.x) % 4 * 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      o.has[h] = Token(h) < place.tokens;
      const int64_t token = place.token0 + Token(h), at = token * width + o.row;
      o.out[h] = static_cast<char*>(p.out) + at * (p.out_f32 ? 4 : 2);
      o.residual[h] = p.residual + at;
      o.squares[h] =
          p.square_sums_out + token * CeilDiv(p.rows, kSquareSumRows) + o.row / kSquareSumRows;
    }
    return o;
  }
  __device__ __forceinline__ void Scale(const float* token_scale) {
#pragma unroll
    for (int h = 0; h < 2; ++h) scale[h] = token_scale[Token(h)];
  }
};

__device__ __forceinline__ float4 Scaled(const float4& v, float scale, const float4& weight) {
  return {v.x * scale * weight.x, v.y * scale * weight.y, v.z * scale * weight.z,
          v.w * scale * weight.w};
}
__device__ __forceinline__ float4 WeightScale(const KernelParams& p, int row, bool fp8) {
  if (!fp8) return {1, 1, 1, 1};
  return *reinterpret_cast<const float4*>(p.weight_scale + row);
}

template <bool kFp8, int kRows, int kSplit>
__device__ __forceinline__ void StoreSums(const KernelParams& p, const Output& out,
                                          const Finished<kRows, kSplit, 1>& finished) {
#pragma unroll
  for (int a = 0; a < finished.kSixteens; ++a) {
    const int row = out.row + a * 16;
    if (row >= p.rows) break;
    const float4 weight = WeightScale(p, row, kFp8);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (!out.has[h]) continue;
      const float4 v = Scaled(finished.v[0][a][h], out.scale[h], weight);
      if (p.out_f32) {
        *reinterpret_cast<float4*>(static_cast<float*>(out.out[h]) + a * 16) = v;
      } else {
        Store4(static_cast<__nv_bfloat16*>(out.out[h]) + a * 16, v);
      }
    }
  }
}

__device__ __forceinline__ float FastSwish(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

template <bool kFp8, int kRows, int kSplit>
__device__ __forceinline__ void StoreSwiGlu(const KernelParams& p, const Output& out,
                                            const Finished<kRows, kSplit, 2>& finished) {
#pragma unroll
  for (int a = 0; a < finished.kSixteens; ++a) {
    const int row = out.row + a * 16;
    if (row >= p.half_rows) break;
    const float4 gate = WeightScale(p, row, kFp8), up = WeightScale(p, p.half_rows + row, kFp8);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (!out.has[h]) continue;
      const float4 g = Scaled(finished.v[0][a][h], out.scale[h], gate);
      const float4 u = Scaled(finished.v[1][a][h], out.scale[h], up);
      Store4(
          static_cast<__nv_bfloat16*>(out.out[h]) + a * 16,
          {FastSwish(g.x) * u.x, FastSwish(g.y) * u.y, FastSwish(g.z) * u.z, FastSwish(g.w) * u.w});
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
template <bool kFp8, int kRows, int kSplit>
__device__ __forceinline__ void AddToResidual(const KernelParams& p, const Output& out,
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
      const float4 weight = WeightScale(p, row, kFp8);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (!out.has[h]) continue;
        float4 x = items.x[i][h];
        AddTo(x, Scaled(finished.v[0][a][h], out.scale[h], weight));
        *reinterpret_cast<float4*>(out.residual[h] + a * 16) = x;
        square[h] += (x.x * x.x + x.y * x.y) + (x.z * x.z + x.w * x.w);
        if (p.next_norm) {
          const float4& norm = items.norm[i];
          Store4(static_cast<__nv_bfloat16*>(out.out[h]) + a * 16,
                 {x.x * norm.x, x.y * norm.y, x.z * norm.z, x.w * norm.w});
        }
      }
    }
    if (!p.next_norm) continue;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      square[h] += __shfl_xor_sync(0xffffffffu, square[h], 1);
      square[h] += __shfl_xor_sync(0xffffffffu, square[h], 2);
      if (threadIdx.x % 4 == 0 && out.has[h]) out.squares[h][pair] = square[h];
    }
  }
}

// What happens to a thread's sums; with a split to everybody's sums of its part of the rows, which
// are in the blocks' shared memory.
template <int kGroups, int kRows, int kSplit, GemmEpilogue kEpilogue, bool kFp8>
__device__ __forceinline__ void Finish(const KernelParams& p, const Output& out,
                                       const cooperative_groups::cluster_group& cluster, int rank,
                                       const float (&sums)[kRows / 2], float4* partial,
                                       ResidualItems& items) {
  Finished<kRows, kSplit, kEpilogue == GemmEpilogue::kSwiGlu ? 2 : 1> finished;
  if constexpr (kSplit == 1) {
#pragma unroll
    for (int i = 0; i < kRows / 8; ++i) {
      finished.v[i / 2 / finished.kSixteens][i / 2 % finished.kSixteens][i % 2] =
          Quad<kRows>(sums, i / 2, i % 2);
    }
  } else {
    Collect<kGroups * 128>(cluster, partial, rank, finished);
  }
  if constexpr (kEpilogue == GemmEpilogue::kResidual) {
    AddToResidual<kFp8>(p, out, finished, items);
  } else if constexpr (kEpilogue == GemmEpilogue::kSwiGlu) {
    StoreSwiGlu<kFp8>(p, out, finished);
  } else {
    StoreSums<kFp8>(p, out, finished);
  }
}

}  // namespace
}  // namespace hgrn2::cuda::gemm
#endif  // HGRN2_HAS_WGMMA
