// What a launch of the product kernel is given, and where a block of it is.
#pragma once

#include <cuda.h>

#include "kernels/cuda/async.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/gemm/decode_gemm.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HGRN2_HAS_WGMMA 1
#endif

namespace hgrn2::cuda::gemm {

constexpr int kBlockBytes = 128;  // columns of a k-block, in bytes: the width of the swizzle
constexpr int kMaxStages = 16;

struct KernelParams {
  CUtensorMap weight;  // boxes of half a row tile, rows in the order of Quad
  CUtensorMap x;       // boxes of a token tile
  const float* weight_scale;
  const float* x_scale;
  const float* square_sums;
  int num_square_sums;
  float eps;
  float* norm_out;
  void* out;
  int out_f32;
  float* residual;
  const float* next_norm;
  float* square_sums_out;
  uint32_t* squares;
  uint32_t* next_squares;
  float square_unit;
  const float* residual_norm;
  float largest_row_norm;
  float largest_next_norm;
  float* out_scale;
  int rows;
  int half_rows;  // kSwiGlu: rows / 2; else 0
  float cols;
  int tokens;
  int token_tiles;
  int k_blocks;
  int stages;
  int row_tiles;  // wide
  int pairs;      // wide: of tiles
  int received;   // bytes from the first stage to what a split's other blocks send
};

using Kernel = void (*)(KernelParams);
// The instance of the wide kernel for a cut, null if there is none. wide_gemm.cu
Kernel WideKernelFor(bool fp8, const DecodeGemmShape& shape, GemmEpilogue epilogue);
inline constexpr int kWideThreads = 3 * 128;
// Of the kernel with tokens in columns. column_gemm.cu
Kernel ColumnKernelFor(int columns, GemmEpilogue epilogue);

#ifdef HGRN2_HAS_WGMMA
namespace {

// Bytes to the next place where a stage may lie: the swizzle's pattern starts every 1024.
__device__ __forceinline__ uint32_t ToSwizzle(const void* shared) {
  return (1024 - (SharedAddress(shared) & 1023)) % 1024;
}

// Where a block is in the product: a cluster has a tile of rows and tokens, cut along the columns
// into `split` blocks. Blocks with the same rows are neighbours: the second finds them in the L2
// cache.
struct Place {
  int split;  // rank in the cluster
  int row_tile;
  int token0, tokens;
  int first, count;  // k-blocks

  __device__ Place(int tile, int first_token, int num_tokens)
      : split(0), row_tile(tile), token0(first_token), tokens(num_tokens), first(0), count(0) {}
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

// The halves of a tile's rows: gate's and up's, or neighbours.
template <int kRows>
struct TileRows {
  static constexpr int kHalf = kRows / 2;
  const KernelParams& p;
  int tile;

  __device__ __forceinline__ int First(int half) const {
    if (p.half_rows > 0) return half * p.half_rows + tile * kHalf;
    return tile * kRows + half * kHalf;
  }
  // FP8: the rows' scales, which complete on the barrier beside what it waits for.
  __device__ __forceinline__ void LoadScales(float* to, uint32_t bar) const {
    uint32_t bytes[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int rows = (p.half_rows > 0 ? (half + 1) * p.half_rows : p.rows) - First(half);
      bytes[half] = max(min(rows, kHalf), 0) * sizeof(float);
    }
    MbarrierExpectMore(bar, bytes[0] + bytes[1]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (bytes[half] == 0) continue;
      BulkLoad(SharedAddress(to + half * kHalf), p.weight_scale + First(half), bytes[half], bar);
    }
  }
};

}  // namespace
#endif  // HGRN2_HAS_WGMMA

}  // namespace hgrn2::cuda::gemm
