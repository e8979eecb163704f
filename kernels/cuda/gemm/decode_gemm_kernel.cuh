// What host and device of the decode product agree on.
#pragma once

#include <cuda.h>

#include "kernels/cuda/gemm/async_copy.cuh"
#include "kernels/cuda/gemm/decode_gemm.h"
#include "kernels/cuda/gemm/wgmma.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HGRN2_HAS_WGMMA 1
#endif

namespace hgrn2::cuda::gemm {

constexpr int kBlockBytes = 128;  // columns of a k-block, in bytes: the width of the swizzle
constexpr int kMaxStages = 16;

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
  int k_blocks;
  int stages;
  int split;
};

// kM warpgroups of 64 rows, and a warp that issues copies.
template <int kM>
inline constexpr int kThreads = kM * 128 + 32;

struct Barriers {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
};

}  // namespace hgrn2::cuda::gemm
