// RMSNorm over rows, with what can ride along: adding a product's output to the residual stream
// first, picking rows, quantising the result for an FP8 product.
#pragma once

#include "kernels/cuda/common.h"

namespace hgrn2::cuda {

// For each output row t < rows: r = row_index ? row_index[t] : t;
//   x[r] += delta[r] (if delta; written back unless row_index is set; with delta_square_sums, delta
//           is divided by an RMSNorm's root first)
//   out[t] = x[r] * rsqrt(mean(x[r]^2) + eps) * weight
// in float32 arithmetic. A negative row_index leaves out[t] as zeros.
struct RmsNormParams {
  void* x = nullptr;                // [*, d], x_type
  DType x_type = DType::kF32;       // kF32 or kBF16
  const void* delta = nullptr;      // [*, d], delta_type, or null
  DType delta_type = DType::kBF16;  // kF32 or kBF16
  // [*, num_delta_square_sums], or null: delta[r] / sqrt(sum_i delta_square_sums[r][i] / d +
  // delta_eps) counts as delta[r].
  const float* delta_square_sums = nullptr;
  int32_t num_delta_square_sums = 0;
  float delta_eps = 0;
  // [*] and [d], or null: delta[r][c] delta_row_scale[r] delta_col_scale[c] counts as delta[r][c].
  const float* delta_row_scale = nullptr;  // may be out_scale
  const float* delta_col_scale = nullptr;
  const float* weight = nullptr;       // [d]
  const int32_t* row_index = nullptr;  // [rows] or null
  void* out = nullptr;                 // [rows, d], out_type
  DType out_type = DType::kBF16;       // kF32, kBF16 or kF8E4M3
  float* out_scale = nullptr;          // [rows], kF8E4M3: value = out * out_scale
  float* norm_out = nullptr;           // [rows] sqrt(sum x[r]^2), or null
  int64_t rows = 0;
  int32_t d = 0;  // a multiple of 8, at most 16384
  float eps = 1e-6f;
  bool overlap = false;  // launch with PDL
};
cudaError_t RmsNorm(const RmsNormParams& params, cudaStream_t stream);

// Threads of a block and 4-element chunks per thread for a row of d. Pure.
struct RmsNormShape {
  int threads = 0;
  int chunks = 0;  // 1, 2, 4, 8 or 16; 0: unsupported d
};
RmsNormShape ChooseRmsNormShape(int32_t d);

}  // namespace hgrn2::cuda
