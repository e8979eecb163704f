// The product kernel with tokens as wgmma's N: docs/kernels/column-gemm.md. bfloat16.
#pragma once

#include "kernels/cuda/gemm/decode_gemm_kernel.cuh"

namespace hgrn2::cuda::gemm {
namespace {

#ifdef HGRN2_HAS_WGMMA

// What the sums of kTokens tokens are multiplied by, four threads a token: partial sums of squares
// are asked for while the products begin and added up behind them.
template <int kTokens, int kThreads>
struct ColumnScales {
  static constexpr int kRounds = CeilDiv(kTokens * 4, kThreads), kPrefetch = 4;
  float4 v[kRounds][kPrefetch];

  static __device__ __forceinline__ const float* Of(const KernelParams& p, int first, int round) {
    const int token = first + (static_cast<int>(threadIdx.x) + round * kThreads) / 4;
    return p.square_sums + int64_t{min(token, p.tokens - 1)} * p.num_square_sums;
  }
  // first: of the product's tokens.
  __device__ __forceinline__ void Load(const KernelParams& p, int first) {
    const int side = threadIdx.x % 4, parts = p.num_square_sums;
    const bool quads = p.square_sums != nullptr && parts % 4 == 0;
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const float* sums = Of(p, first, round);
#pragma unroll
      for (int i = 0; i < kPrefetch; ++i) {
        const int part = (i * 4 + side) * 4;
        v[round][i] = quads && part < parts ? *reinterpret_cast<const float4*>(sums + part)
                                            : make_float4(0, 0, 0, 0);
      }
    }
  }
  __device__ __forceinline__ void Finish(const KernelParams& p, int first, float* scales) const {
    const int side = threadIdx.x % 4, parts = p.num_square_sums;
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const int token = (static_cast<int>(threadIdx.x) + round * kThreads) / 4;
      float scale = 1;
      if (p.square_sums != nullptr) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kPrefetch; ++i) {
          const float4& x = v[round][i];
          sum += (x.x + x.y) + (x.z + x.w);
        }
        const float* sums = Of(p, first, round);
#pragma unroll 1
        for (int part = parts % 4 != 0 ? side : kPrefetch * 16 + side; part < parts; part += 4) {
          sum += sums[part];
        }
        scale = rsqrtf(SumOfLanes(sum) / p.cols + p.eps);
      }
      if (side == 0 && token < kTokens) scales[token] = scale;
    }
  }
};

// Four 8 x 8 matrices as wgmma leaves them, transposed; lane 8 m + r has the address of row r of
// matrix m.
__device__ __forceinline__ void StoreTransposed(uint32_t to, const uint32_t (&v)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
               "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
               : "memory");
}

// swish(gate) up. A thread has gate and up of one feature (its rows of 16 of the warp are 8 of
// either) and two neighbouring tokens of each eight: through shared memory, so that a token's
// features are stored side by side.
template <int kGroups, int kColumns>
__device__ __forceinline__ void StoreSwiGluColumns(const KernelParams& p, const Place& place,
                                                   const float (&sums)[kColumns / 2],
                                                   const float* scales, uint8_t* buffer) {
  constexpr int kThreads = kGroups * 128, kPieces = kGroups * 4, kTokenBytes = kPieces * 16 + 16;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t to = SharedAddress(buffer) + lane * kTokenBytes + warp * 16;
#pragma unroll
  for (int j = 0; j < kColumns / 8; j += 4) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* sum = sums + (j + i) * 4;
      const float2 scale = *reinterpret_cast<const float2*>(scales + (j + i) * 8 + lane % 4 * 2);
      packed[i] = PackPair(FastSwish(sum[0] * scale.x) * (sum[2] * scale.x),
                           FastSwish(sum[1] * scale.y) * (sum[3] * scale.y));
    }
    StoreTransposed(to + j * 8 * kTokenBytes, packed);
  }
  ConsumersSync<kThreads>();
  const int feature0 = place.row_tile * (kGroups * 32);
#pragma unroll 4
  for (int i = threadIdx.x; i < kColumns * kPieces; i += kThreads) {
    const int token = i / kPieces, piece = i % kPieces, feature = feature0 + piece * 8;
    if (token >= place.tokens) break;
    if (feature >= p.half_rows) continue;
    auto* out =
        static_cast<__nv_bfloat16*>(p.out) + int64_t{place.token0 + token} * p.half_rows + feature;
    *reinterpret_cast<uint4*>(out) =
        *reinterpret_cast<const uint4*>(buffer + token * kTokenBytes + piece * 16);
  }
}

// x += sums, and what the next product needs. Either block of the tile finishes half of its tokens;
// a thread has four rows of every eighth of them.
template <int kColumns>
struct ColumnResidual {
  static constexpr int kTokens = kColumns / 2, kItems = kTokens / 8;
  const KernelParams& p;
  const Place& place;
  float4 x[kItems], norm;

  __device__ __forceinline__ ColumnResidual(const KernelParams& params, const Place& at)
      : p(params), place(at) {}
  static __device__ __forceinline__ int Quad() { return static_cast<int>(threadIdx.x) % 16; }
  __device__ __forceinline__ int Row() const { return place.row_tile * 64 + Quad() * 4; }
  // Of the tile's tokens.
  __device__ __forceinline__ int Token(int i) const {
    return place.split * kTokens + static_cast<int>(threadIdx.x) / 16 + i * 8;
  }
  __device__ __forceinline__ bool Has(int i) const {
    return Token(i) < place.tokens && Row() < p.rows;
  }
  __device__ __forceinline__ int64_t At(int i) const {
    return int64_t{place.token0 + Token(i)} * p.rows + Row();
  }
  __device__ __forceinline__ void Load() {
    if (p.next_norm && Row() < p.rows) norm = *reinterpret_cast<const float4*>(p.next_norm + Row());
#pragma unroll
    for (int i = 0; i < kItems; ++i)
      if (Has(i)) x[i] = *reinterpret_cast<const float4*>(p.residual + At(i));
  }
  // Sums by rows: [token][kColumnStride].
  static __device__ __forceinline__ void Spread(const float (&sums)[kColumns / 2], float* to) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    to += lane % 4 * 2 * kColumnStride + warp * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) to[(j * 8 + e % 2) * kColumnStride + e / 2 * 8] = sums[j * 4 + e];
    }
  }
  __device__ __forceinline__ void Finish(const float* own, const float* received,
                                         const float* scales) const {
    const int parts = static_cast<int>(CeilDiv(p.rows, kSquareSumRows));
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int token = Token(i), mine = token - place.split * kTokens;
      float4 v = *reinterpret_cast<const float4*>(own + token * kColumnStride + Quad() * 4);
      AddTo(v, *reinterpret_cast<const float4*>(received + mine * kColumnStride + Quad() * 4));
      float square = 0;
      if (Has(i)) {
        const float scale = scales[mine];
        float4 sum = x[i];
        AddTo(sum, {v.x * scale, v.y * scale, v.z * scale, v.w * scale});
        *reinterpret_cast<float4*>(p.residual + At(i)) = sum;
        square = SquareOf(sum);
        if (p.next_norm) {
          Store4(static_cast<__nv_bfloat16*>(p.out) + At(i),
                 {sum.x * norm.x, sum.y * norm.y, sum.z * norm.z, sum.w * norm.w});
        }
      }
      if (!p.next_norm) continue;
#pragma unroll
      for (int offset = 4; offset > 0; offset /= 2)
        square += __shfl_xor_sync(0xffffffffu, square, offset);
      if (Quad() % 8 == 0 && Has(i)) {
        p.square_sums_out[int64_t{place.token0 + token} * parts + Row() / kSquareSumRows] = square;
      }
    }
  }
};

#endif  // HGRN2_HAS_WGMMA

constexpr int ColumnGroups(GemmEpilogue epilogue) {
  return epilogue == GemmEpilogue::kResidual ? 1 : 3;
}

template <int kColumns, GemmEpilogue kEpilogue>
__global__ void __launch_bounds__(Threads(ColumnGroups(kEpilogue)), 1)
    ColumnGemmKernel(const __grid_constant__ KernelParams p) {
#ifdef HGRN2_HAS_WGMMA
  constexpr bool kResidual = kEpilogue == GemmEpilogue::kResidual;
  constexpr int kGroups = ColumnGroups(kEpilogue), kSplit = kResidual ? 2 : 1,
                kConsumers = kGroups * 128, kRows = kGroups * 64, kTokens = kColumns / kSplit;
  using Copies = Producer<kGroups, kRows, kColumns, true, false>;
  extern __shared__ uint8_t raw[];
  __shared__ Barriers barriers;
  __shared__ TileScales<kRows, false> no_scales;
  __shared__ alignas(16) float scales[kColumns];
  uint8_t* aligned = raw + ToSwizzle(raw);
  const uint32_t stages = SharedAddress(aligned);
  const Place place(p, kColumns, kSplit);
  const Copies producer = {p, place, stages, barriers, no_scales};
  Open<kConsumers, kSplit>(producer);
  if (threadIdx.x < kConsumers) {
    const int first = place.token0 + place.split * kTokens;
    ColumnScales<kTokens, kConsumers> token_scales;
    ColumnResidual<kColumns> residual(p, place);
    float sums[1][kColumns / 2];
    const auto meanwhile = [&] {
      GridDependencyWait();
      token_scales.Load(p, first);
      if constexpr (kResidual) residual.Load();
    };
    const int rows = static_cast<int>(threadIdx.x) / 128 * 64 * kBlockBytes;
    Multiply<Copies::kStage, kColumns, false>(p, place, stages, rows, kRows * kBlockBytes, barriers,
                                              sums, meanwhile);
    token_scales.Finish(p, first, scales);
    ConsumersSync<kConsumers>();  // nobody reads the stages any more
    if constexpr (kResidual) {
      auto* own = reinterpret_cast<float*>(aligned);
      auto* received = reinterpret_cast<float*>(aligned + p.received);
      residual.Spread(sums[0], own);
      constexpr int kPart = kTokens * kColumnStride, kPartBytes = kPart * 4;
      const uint32_t bar = SharedAddress(&barriers.received[0]);
      const int other = place.split ^ 1;
      AsyncProxyFence();
      ConsumersSync<kConsumers>();
      ClusterWait();  // the other's barriers exist
      if (threadIdx.x == 0) {
        MbarrierExpect(bar, kPartBytes);
        SendToPeer(received, own + other * kPart, kPartBytes, bar, other);
      }
      MbarrierWait(bar, 0);
      residual.Finish(own, received, scales);
      SentRead();
    } else {
      StoreSwiGluColumns<kGroups, kColumns>(p, place, sums[0], scales, aligned);
    }
  } else {
    Copy<kConsumers, kSplit>(producer);
  }
#endif
}

template <int kColumns, GemmEpilogue kEpilogue>
Kernel ColumnKernelOf() {
  if constexpr (IsBuiltColumns(kColumns, kEpilogue)) return ColumnGemmKernel<kColumns, kEpilogue>;
  return nullptr;
}

}  // namespace
}  // namespace hgrn2::cuda::gemm
