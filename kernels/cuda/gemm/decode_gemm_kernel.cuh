// The product kernel: docs/kernels/decode-gemm.md. Included by one source file per weight type, so
// that they compile in parallel; decode_gemm.cu has the host's part.
#pragma once

#include <cooperative_groups.h>
#include <cuda.h>

#include "kernels/cuda/async.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/gemm/decode_gemm.h"
#include "kernels/cuda/gemm/wgmma.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HGRN2_HAS_WGMMA 1
#endif

namespace hgrn2::cuda::gemm {

constexpr int kBlockBytes = 128;  // columns of a k-block, in bytes: the width of the swizzle
constexpr int kMaxStages = 16;
constexpr int kMaxSplit = 4;

struct KernelParams {
  CUtensorMap weight;  // boxes of half a row tile
  CUtensorMap x;       // boxes of a token tile
  const float* weight_scale;
  const float* x_scale;
  const float* square_sums;
  int num_square_sums;
  float eps;
  GemmEpilogue epilogue;
  void* out;
  int out_f32;
  float* residual;
  const float* next_norm;
  float* square_sums_out;
  int rows;
  int half_rows;  // kSwiGlu: rows / 2; else 0
  float cols;
  int tokens;
  int token_tiles;
  int k_blocks;
  int stages;
  int split;
};
using Kernel = void (*)(KernelParams);

// Warpgroups of 64 tokens, a warp that issues copies and one that adds up the norms.
constexpr int Threads(int groups) { return groups * 128 + 64; }

// The instance for a tile, null if there is none. decode_gemm_{bf16,fp8}.cu
template <bool kFp8>
Kernel KernelFor(int groups, int row_tile);

namespace {

struct Barriers {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
};

#ifdef HGRN2_HAS_WGMMA
// Where a block is in the product: a cluster has a tile of rows and tokens, cut along the columns
// into `split` blocks. Blocks with the same rows are neighbours: the second finds them in the L2
// cache.
struct Place {
  int split;  // rank in the cluster
  int row_tile;
  int token0, tokens;
  int first, count;  // k-blocks

  __device__ Place(const KernelParams& p, int token_tile) {
    split = blockIdx.x % p.split;
    const int tile = blockIdx.x / p.split;
    row_tile = tile / p.token_tiles;
    token0 = tile % p.token_tiles * token_tile;
    tokens = min(p.tokens - token0, token_tile);
    first = split * p.k_blocks / p.split;
    count = (split + 1) * p.k_blocks / p.split - first;
  }
};

// A position in the ring of stages.
struct Cursor {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Advance(int stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

// The copying lane.
template <int kGroups, int kRows, bool kFp8>
struct Producer {
  static constexpr int kTokens = kGroups * 64, kHalf = kRows / 2,
                       kStage = (kRows + kTokens) * kBlockBytes,
                       kColumns = kFp8 ? kBlockBytes : kBlockBytes / 2;
  const KernelParams& p;
  const Place& place;
  uint32_t stages;
  Barriers& barriers;

  __device__ uint32_t Full(int stage) const { return SharedAddress(&barriers.full[stage]); }

  __device__ void InitBarriers() const {
    for (int s = 0; s < p.stages; ++s) {
      MbarrierInit(Full(s), 1);
      MbarrierInit(SharedAddress(&barriers.empty[s]), kGroups);
    }
    MbarrierInitFence();
    AsyncProxyFence();
  }
  __device__ void Weights(int i, int s) const {
    const int row0 = place.row_tile * (p.half_rows > 0 ? kHalf : kRows);
    const int row1 = p.half_rows > 0 ? p.half_rows + row0 : row0 + kHalf;
    const int column = (place.first + i) * kColumns;
    const uint32_t to = stages + s * kStage;
    MbarrierExpect(Full(s), kStage);
    TensorLoad(to, &p.weight, column, row0, Full(s));
    TensorLoad(to + kHalf * kBlockBytes, &p.weight, column, row1, Full(s));
  }
  __device__ void Tokens(int i, int s) const {
    TensorLoad(stages + s * kStage + kRows * kBlockBytes, &p.x, (place.first + i) * kColumns,
               place.token0, Full(s));
  }
  // Weights of the first stages, which no kernel writes: on their way before the kernel ahead ends.
  __device__ void Begin() const {
    for (int i = 0; i < min(place.count, p.stages); ++i) Weights(i, i);
  }
  __device__ void Run() const {
    const int ahead = min(place.count, p.stages);
    for (int i = 0; i < ahead; ++i) Tokens(i, i);
    Cursor at;
    for (int i = ahead; i < place.count; ++i) {
      MbarrierWait(SharedAddress(&barriers.empty[at.stage]), at.parity);
      Weights(i, at.stage);
      Tokens(i, at.stage);
      at.Advance(p.stages);
    }
  }
};

// Descriptor of rows of 128 bytes, 128-byte swizzle: groups of 8 rows are 1024 bytes apart.
__device__ __forceinline__ uint64_t Descriptor(uint32_t shared) {
  return (shared & 0x3FFFF) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

// A warpgroup: its 64 tokens times the block's rows.
template <int kGroups, int kRows, bool kFp8>
__device__ void Multiply(const KernelParams& p, const Place& place, uint32_t stages,
                         Barriers& barriers, float (&sums)[kRows / 2]) {
  constexpr int kStage = (kRows + kGroups * 64) * kBlockBytes;
  const int group = threadIdx.x / 128;
  Cursor at;
  int last = 0;
  for (int i = 0; i < place.count; ++i) {
    MbarrierWait(SharedAddress(&barriers.full[at.stage]), at.parity);
    const uint32_t stage = stages + at.stage * kStage;
    const uint64_t x = Descriptor(stage + (kRows + group * 64) * kBlockBytes);
    const uint64_t weights = Descriptor(stage);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < kBlockBytes / 32; ++k) {
      Wgmma<kRows, kFp8>::Run(sums, x + k * 2, weights + k * 2, i > 0 || k > 0);
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
    if (i > 0 && threadIdx.x % 128 == 0) MbarrierArrive(SharedAddress(&barriers.empty[last]));
    last = at.stage;
    at.Advance(p.stages);
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int j = 0; j < kRows / 2; ++j)
    asm volatile("" : "+f"(sums[j])::"memory");  // not read earlier
}

// A block's sums as [token][row] floats; the stride spreads a warp's fragment over all banks.
template <int kRows>
constexpr int kPartialStride = kRows + 8;

template <int kRows>
__device__ void StorePartial(const float (&sums)[kRows / 2], float* partial) {
  const int token = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  float* at = partial + token * kPartialStride<kRows> + threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < kRows / 8; ++j) {
    *reinterpret_cast<float2*>(at + j * 8) = {sums[j * 4], sums[j * 4 + 1]};
    *reinterpret_cast<float2*>(at + j * 8 + 8 * kPartialStride<kRows>) = {sums[j * 4 + 2],
                                                                          sums[j * 4 + 3]};
  }
}

// What a token's sums are multiplied by. One warp's work, beside the products: a lane a token.
__device__ __forceinline__ void TokenScales(const KernelParams& p, int token0, int begin, int end,
                                            float* scales) {
  for (int i = begin + static_cast<int>(threadIdx.x % 32); i < end; i += 32) {
    const int t = token0 + i;
    float scale = p.x_scale ? p.x_scale[t] : 1.0f;
    if (p.square_sums) {
      const float* squares = p.square_sums + static_cast<int64_t>(t) * p.num_square_sums;
      float sum = 0;
      int part = 0;
      if (p.num_square_sums % 4 == 0) {
#pragma unroll 8
        for (; part < p.num_square_sums; part += 4) {
          const float4 v = *reinterpret_cast<const float4*>(squares + part);
          sum += (v.x + v.y) + (v.z + v.w);
        }
      }
      for (; part < p.num_square_sums; ++part) sum += squares[part];
      scale *= rsqrtf(sum / p.cols + p.eps);
    }
    scales[i] = scale;
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

// The finished sums of 4 rows and one token; parts of a split are added in their order.
template <int kRows, bool kIsSplit>
struct Sums {
  const KernelParams& p;
  const float* parts[kMaxSplit];
  const float* token_scale;

  __device__ __forceinline__ float4 Part(int s, int t, int r) const {
    return *reinterpret_cast<const float4*>(parts[s] + t * kPartialStride<kRows> + r);
  }
  __device__ __forceinline__ float4 At(int t, int r, int row) const {
    float4 sum;
    if constexpr (kIsSplit) {
      float4 part[kMaxSplit];  // all on their way before the first is added
#pragma unroll
      for (int s = 0; s < kMaxSplit; ++s) {
        if (s < p.split) part[s] = Part(s, t, r);
      }
      sum = part[0];
#pragma unroll
      for (int s = 1; s < kMaxSplit; ++s) {
        if (s < p.split) {
          sum.x += part[s].x, sum.y += part[s].y, sum.z += part[s].z, sum.w += part[s].w;
        }
      }
    } else {
      sum = Part(0, t, r);
    }
    const float scale = token_scale[t];
    if (p.weight_scale) {
      const float4 w = *reinterpret_cast<const float4*>(p.weight_scale + row);
      sum.x *= w.x, sum.y *= w.y, sum.z *= w.z, sum.w *= w.w;
    }
    return make_float4(sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale);
  }
};

// Items of a thread, 4 rows of one token each, whose residual and norm it fetches together.
constexpr int kResidualBatch = 3;
struct ResidualItems {
  float4 x[kResidualBatch], norm[kResidualBatch];
  template <int kRows>
  __device__ __forceinline__ void Load(const KernelParams& p, const Place& place, int first,
                                       int begin, int end) {
    constexpr int kQuads = kRows / 4;
#pragma unroll
    for (int k = 0; k < kResidualBatch; ++k) {
      const int i = first + k * static_cast<int>(blockDim.x);
      const int t = begin + i / kQuads, row = place.row_tile * kRows + i % kQuads * 4;
      if (t >= end || row >= p.rows) continue;
      const int64_t at = static_cast<int64_t>(place.token0 + t) * p.rows + row;
      x[k] = *reinterpret_cast<const float4*>(p.residual + at);
      if (p.next_norm) norm[k] = *reinterpret_cast<const float4*>(p.next_norm + row);
    }
  }
};

// x += sums, and what the next product needs: x times its norm's weight, sums of squares. 16 lanes
// have 64 rows of a token. `items` has the thread's first ones, fetched before the sums were there.
template <int kRows, bool kIsSplit>
__device__ __forceinline__ void AddToResidual(const KernelParams& p, const Place& place,
                                              const Sums<kRows, kIsSplit>& sums, int begin, int end,
                                              ResidualItems& items) {
  constexpr int kQuads = kRows / 4;
  static_assert(kSquareSumRows == 64);
  const int64_t parts = CeilDiv(p.rows, kSquareSumRows);
  const int count = (end - begin) * kQuads, stride = blockDim.x;
#pragma unroll 1
  for (int first = threadIdx.x; first < count; first += kResidualBatch * stride) {
    if (first != static_cast<int>(threadIdx.x)) {
      items.Load<kRows>(p, place, first, begin, end);
    }
#pragma unroll
    for (int k = 0; k < kResidualBatch; ++k) {
      const int i = first + k * stride;
      if (i >= count) break;  // with all 16 lanes of the token
      const int t = begin + i / kQuads, r = i % kQuads * 4, row = place.row_tile * kRows + r;
      const int64_t at = static_cast<int64_t>(place.token0 + t) * p.rows + row;
      float square = 0;
      if (row < p.rows) {
        float4 x = items.x[k];
        const float4 v = sums.At(t, r, row);
        x.x += v.x, x.y += v.y, x.z += v.z, x.w += v.w;
        *reinterpret_cast<float4*>(p.residual + at) = x;
        square = x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
        if (p.next_norm) {
          const float4 norm = items.norm[k];
          Store4(static_cast<__nv_bfloat16*>(p.out) + at,
                 make_float4(x.x * norm.x, x.y * norm.y, x.z * norm.z, x.w * norm.w));
        }
      }
      if (!p.next_norm) continue;
#pragma unroll
      for (int offset = 8; offset > 0; offset /= 2) {
        square += __shfl_xor_sync(0xffffu << (threadIdx.x & 16), square, offset);
      }
      if (threadIdx.x % 16 == 0 && row < p.rows) {
        p.square_sums_out[(place.token0 + t) * parts + row / kSquareSumRows] = square;
      }
    }
  }
}

__device__ __forceinline__ float FastSwish(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

template <int kRows, bool kIsSplit>
__device__ __forceinline__ void StoreSwiGlu(const KernelParams& p, const Place& place,
                                            const Sums<kRows, kIsSplit>& sums, int begin, int end) {
  constexpr int kHalf = kRows / 2, kQuads = kHalf / 4;
  __nv_bfloat16* out = static_cast<__nv_bfloat16*>(p.out);
#pragma unroll 2
  for (int i = threadIdx.x; i < (end - begin) * kQuads; i += blockDim.x) {
    const int t = begin + i / kQuads, r = i % kQuads * 4, row = place.row_tile * kHalf + r;
    if (row >= p.half_rows) continue;
    const float4 g = sums.At(t, r, row), u = sums.At(t, kHalf + r, p.half_rows + row);
    Store4(out + static_cast<int64_t>(place.token0 + t) * p.half_rows + row,
           make_float4(FastSwish(g.x) * u.x, FastSwish(g.y) * u.y, FastSwish(g.z) * u.z,
                       FastSwish(g.w) * u.w));
  }
}

template <int kRows, bool kIsSplit>
__device__ __forceinline__ void StoreSums(const KernelParams& p, const Place& place,
                                          const Sums<kRows, kIsSplit>& sums, int begin, int end) {
  constexpr int kQuads = kRows / 4;
#pragma unroll 4
  for (int i = threadIdx.x; i < (end - begin) * kQuads; i += blockDim.x) {
    const int t = begin + i / kQuads, r = i % kQuads * 4, row = place.row_tile * kRows + r;
    if (row >= p.rows) continue;
    const float4 v = sums.At(t, r, row);
    const int64_t at = static_cast<int64_t>(place.token0 + t) * p.rows + row;
    if (p.out_f32) {
      *reinterpret_cast<float4*>(static_cast<float*>(p.out) + at) = v;
    } else {
      Store4(static_cast<__nv_bfloat16*>(p.out) + at, v);
    }
  }
}

template <int kRows, bool kIsSplit>
__device__ __forceinline__ void Finish(const KernelParams& p, const Place& place,
                                       const Sums<kRows, kIsSplit>& sums, int begin, int end,
                                       ResidualItems& items) {
  if (p.epilogue == GemmEpilogue::kResidual) {
    if constexpr (kRows % kSquareSumRows == 0) {
      AddToResidual<kRows>(p, place, sums, begin, end, items);
    }
  } else if (p.epilogue == GemmEpilogue::kSwiGlu) {
    StoreSwiGlu<kRows>(p, place, sums, begin, end);
  } else {
    StoreSums<kRows>(p, place, sums, begin, end);
  }
}
#endif  // HGRN2_HAS_WGMMA

// Block s of a split multiplies the s-th part of the columns, then finishes the s-th part of the
// tokens with everybody's sums.
template <int kGroups, int kRows, bool kFp8>
__global__ void __launch_bounds__(Threads(kGroups), kRows > 128 ? 1 : 2)
    DecodeGemmKernel(const __grid_constant__ KernelParams p) {
#ifdef HGRN2_HAS_WGMMA
  constexpr int kConsumers = kGroups * 128;
  extern __shared__ uint8_t raw[];
  __shared__ Barriers barriers;
  __shared__ float token_scale[kGroups * 64];
  uint8_t* aligned = raw + (1024 - (SharedAddress(raw) & 1023)) % 1024;
  const uint32_t stages = SharedAddress(aligned);
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const Place place(p, kGroups * 64);
  const Producer<kGroups, kRows, kFp8> producer = {p, place, stages, barriers};
  GridDependencyLaunch();
  if (threadIdx.x == kConsumers) {
    producer.InitBarriers();
    producer.Begin();
  }
  __syncthreads();
  float* partial = reinterpret_cast<float*>(aligned);
  const int begin = place.split * place.tokens / p.split;
  const int end = (place.split + 1) * place.tokens / p.split;
  if (threadIdx.x < kConsumers) {
    float sums[kRows / 2];
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) sums[i] = 0;
    Multiply<kGroups, kRows, kFp8>(p, place, stages, barriers, sums);
    GridDependencyWait();
    asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");  // all are done with the stages
    StorePartial<kRows>(sums, partial);
  } else {
    GridDependencyWait();  // every thread: what it reads and writes from here on is others'
    if (threadIdx.x == kConsumers) producer.Run();
    if (threadIdx.x >= kConsumers + 32) TokenScales(p, place.token0, begin, end, token_scale);
    __syncwarp();
  }
  ResidualItems items;
  if (kRows % kSquareSumRows == 0 && p.epilogue == GemmEpilogue::kResidual) {
    items.Load<kRows>(p, place, threadIdx.x, begin, end);
  }
  if (p.split == 1) {
    __syncthreads();
    const Sums<kRows, false> sums = {p, {partial}, token_scale};
    Finish(p, place, sums, begin, end, items);
    return;
  }
  cluster.sync();
  Sums<kRows, true> sums = {p, {}, token_scale};
#pragma unroll
  for (int s = 0; s < kMaxSplit; ++s) {
    if (s >= p.split) break;
    sums.parts[s] = cluster.map_shared_rank(partial, s);
  }
  Finish(p, place, sums, begin, end, items);
  // A peer may still read this block's sums.
  asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;" ::: "memory");
#endif
}

template <int kGroups, bool kFp8>
Kernel KernelOfGroups(int row_tile) {
  switch (row_tile) {
    case 32:
      return DecodeGemmKernel<kGroups, 32, kFp8>;
    case 64:
      return DecodeGemmKernel<kGroups, 64, kFp8>;
    case 96:
      return DecodeGemmKernel<kGroups, 96, kFp8>;
    case 128:
      return DecodeGemmKernel<kGroups, 128, kFp8>;
    case 192:
      return DecodeGemmKernel<kGroups, 192, kFp8>;
  }
  return nullptr;
}

}  // namespace
}  // namespace hgrn2::cuda::gemm
