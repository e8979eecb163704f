// Products of a few tokens (at most 128) with a weight matrix, at the speed of the weights' bytes:
//   out[T, rows] = x[T, cols] W[rows, cols]^T, bfloat16 or FP8 (e4m3).
//
// sm_90a. Weights are the 64-row operand of wgmma and the tokens its N. The kernel is meant for
// programmatic dependent launch: it begins to stream weights, which no kernel writes, into shared
// memory while the kernel ahead still runs. See docs/kernels/skinny-gemm.md.
#pragma once

#include <cuda.h>

#include "kernels/cuda/common.h"
#include "kernels/cuda/model_view.h"

namespace hgrn2::cuda {

struct SkinnyGemmParams {
  MatrixView weight;               // kBF16 or kF8E4M3
  const void* x = nullptr;         // [T, cols] of weight.type, 16-byte aligned
  const float* x_scale = nullptr;  // [T], kF8E4M3
  void* out = nullptr;             // [T, rows], out_type
  DType out_type = DType::kBF16;   // kF32 or kBF16
  int32_t tokens = 0;              // T <= kMaxSkinnyTokens
  bool overlap = false;            // launch with PDL
};
inline constexpr int32_t kMaxSkinnyTokens = 128;

// How a product is cut. A function of the shape alone, so that results depend on nothing else.
// Pure.
struct SkinnyGemmShape {
  int token_tile = 0;  // N of the instruction: 32, 64 or 128; 0: not supported
  int split = 1;  // 1, 2 or 4 blocks that share a tile of 128 rows, each with a part of the columns
  int stages = 0;
  size_t shared_bytes = 0;
};
SkinnyGemmShape ChooseSkinnyGemm(int64_t rows, int64_t cols, int32_t tokens, DType type);

// Once per process and device. cudaErrorNotSupported before sm_90.
cudaError_t InitSkinnyGemm();
cudaError_t SkinnyGemm(const SkinnyGemmParams& params, cudaStream_t stream);

}  // namespace hgrn2::cuda
