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
  CUtensorMap weight;  // boxes of half a row tile, rows in the order of Quad
  CUtensorMap x;       // boxes of a token tile
  const float* weight_scale;
  const float* x_scale;
  const float* square_sums;
  int num_square_sums;
  float eps;
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
};
using Kernel = void (*)(KernelParams);

// Warpgroups of 64 tokens, a warp that issues copies and one that adds up the norms.
constexpr int Threads(int groups) { return groups * 128 + 64; }

// The instance for a cut, null if there is none. decode_gemm_{bf16,fp8}.cu
template <bool kFp8>
Kernel KernelFor(const DecodeGemmShape& shape, GemmEpilogue epilogue);

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

  __device__ Place(const KernelParams& p, int token_tile, int splits) {
    split = blockIdx.x % splits;
    const int tile = blockIdx.x / splits;
    row_tile = tile / p.token_tiles;
    token0 = tile % p.token_tiles * token_tile;
    tokens = min(p.tokens - token0, token_tile);
    first = split * p.k_blocks / splits;
    count = (split + 1) * p.k_blocks / splits - first;
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
    TensorLoadRows(to, &p.weight, column, row0 / 16, Full(s));
    TensorLoadRows(to + kHalf * kBlockBytes, &p.weight, column, row1 / 16, Full(s));
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

// Barriers of a block by number; 0 is __syncthreads.
constexpr int kStagesRead = 1, kScalesThere = 2;
template <int kBarrier, int kThreads>
__device__ __forceinline__ void NamedSync() {
  asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kThreads) : "memory");
}
template <int kBarrier, int kThreads>
__device__ __forceinline__ void NamedArrive() {
  asm volatile("bar.arrive %0, %1;" ::"n"(kBarrier), "n"(kThreads) : "memory");
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
#endif  // HGRN2_HAS_WGMMA

// Block s of a split multiplies the s-th part of the columns, then finishes the s-th part of the
// tile's rows with everybody's sums.
template <int kGroups, int kRows, int kSplit, GemmEpilogue kEpilogue, bool kFp8>
__global__ void __launch_bounds__(Threads(kGroups), MayShare(kRows, kGroups, kEpilogue) ? 2 : 1)
    DecodeGemmKernel(const __grid_constant__ KernelParams p) {
#ifdef HGRN2_HAS_WGMMA
  constexpr int kConsumers = kGroups * 128;
  extern __shared__ uint8_t raw[];
  __shared__ Barriers barriers;
  __shared__ float token_scale[kGroups * 64];
  uint8_t* aligned = raw + (1024 - (SharedAddress(raw) & 1023)) % 1024;
  const uint32_t stages = SharedAddress(aligned);
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const Place place(p, kGroups * 64, kSplit);
  const Producer<kGroups, kRows, kFp8> producer = {p, place, stages, barriers};
  GridDependencyLaunch();
  if (threadIdx.x == kConsumers) {
    producer.InitBarriers();
    producer.Begin();
  }
  __syncthreads();
  float4* partial = reinterpret_cast<float4*>(aligned);
  if (threadIdx.x < kConsumers) {
    float sums[kRows / 2];
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) sums[i] = 0;
    Multiply<kGroups, kRows, kFp8>(p, place, stages, barriers, sums);
    GridDependencyWait();  // every thread: what it reads and writes from here on is others'
    if constexpr (kSplit > 1) {
      NamedSync<kStagesRead, kConsumers>();
      StorePartial<kRows>(sums, partial, kConsumers);
    }
    Output out = Output::Of<kRows, kSplit, kEpilogue>(p, place);
    ResidualItems items;
    if constexpr (kEpilogue == GemmEpilogue::kResidual) {
      items.Load(p, out, 0);  // on their way before the sums are there
    }
    NamedSync<kScalesThere, kConsumers + 32>();
    if constexpr (kSplit > 1) cluster.sync();  // everybody's sums are there
    out.Scale(token_scale);
    Finish<kGroups, kRows, kSplit, kEpilogue, kFp8>(p, out, cluster, place.split, sums, partial,
                                                    items);
  } else {
    GridDependencyWait();
    if (threadIdx.x == kConsumers) producer.Run();
    if (threadIdx.x >= kConsumers + 32) {
      TokenScales(p, place, token_scale);
      NamedArrive<kScalesThere, kConsumers + 32>();
    }
    __syncwarp();
    if constexpr (kSplit > 1) cluster.sync();
  }
  // A peer may still read this block's sums.
  if constexpr (kSplit > 1) {
    asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;" ::: "memory");
  }
#endif
}

template <int kGroups, int kRows, int kSplit, bool kFp8>
Kernel KernelOf(GemmEpilogue epilogue) {
  if constexpr (kRows / 32 % kSplit == 0) {
    if (epilogue == GemmEpilogue::kResidual) {
      return DecodeGemmKernel<kGroups, kRows, kSplit, GemmEpilogue::kResidual, kFp8>;
    }
    if (epilogue == GemmEpilogue::kSwiGlu) {
      return DecodeGemmKernel<kGroups, kRows, kSplit, GemmEpilogue::kSwiGlu, kFp8>;
    }
  }
  if constexpr (kRows / 16 % kSplit == 0) {
    if (epilogue == GemmEpilogue::kStore) {
      return DecodeGemmKernel<kGroups, kRows, kSplit, GemmEpilogue::kStore, kFp8>;
    }
  }
  return nullptr;
}
template <int kGroups, int kRows, bool kFp8>
Kernel KernelOf(int split, GemmEpilogue epilogue) {
  switch (split) {
    case 1:
      return KernelOf<kGroups, kRows, 1, kFp8>(epilogue);
    case 2:
      return KernelOf<kGroups, kRows, 2, kFp8>(epilogue);
    case 4:
      return KernelOf<kGroups, kRows, 4, kFp8>(epilogue);
  }
  return nullptr;
}
template <int kGroups, bool kFp8>
Kernel KernelOf(int row_tile, int split, GemmEpilogue epilogue) {
  switch (row_tile) {
    case 32:
      return KernelOf<kGroups, 32, kFp8>(split, epilogue);
    case 64:
      return KernelOf<kGroups, 64, kFp8>(split, epilogue);
    case 96:
      return KernelOf<kGroups, 96, kFp8>(split, epilogue);
    case 128:
      return KernelOf<kGroups, 128, kFp8>(split, epilogue);
    case 192:
      return KernelOf<kGroups, 192, kFp8>(split, epilogue);
  }
  return nullptr;
}

}  // namespace
}  // namespace hgrn2::cuda::gemm
