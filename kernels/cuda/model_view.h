// Device-side view of a model's weights: what kernels that span a layer or the whole model read
// (kernels/cuda/persistent builds its own packing from it at load). Filled by engine/backend/cuda_model.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace hgrn2::cuda {

// A matrix [rows, cols], row-major, y = x W^T. type kF32 or kBF16: plain; kF8E4M3: `scale` holds one
// float per row, W[r][c] = data[r][c] * scale[r].
struct MatrixView {
  const void* data = nullptr;
  const float* scale = nullptr;  // [rows], kF8E4M3 only
  DType type = DType::kBF16;
  int64_t rows = 0;
  int64_t cols = 0;
};

struct LayerView {
  MatrixView qfi;       // [3 d, d]: q rows, then f, then i
  MatrixView o;         // [d, d]
  MatrixView gate_up;   // [2 m, d]: gate rows, then up
  MatrixView down;      // [d, m]
  const float* attn_norm = nullptr;    // [d]
  const float* g_norm = nullptr;       // [d]; ones if the checkpoint has none, or if g_norm_in_o
  const float* mlp_norm = nullptr;     // [d]
  const float* lower_bound = nullptr;  // [d]; zeros in layer 0 and without lower bounds
  const float* conv = nullptr;         // [3 (q, f, i)][d][conv_size], or null
  // kF8E4M3: the largest Euclidean norms of rows, and the largest |weights| of norms. up's rows and
  // down's columns are balanced (gemm/fp8_range.h).
  float o_row_norm = 0, down_row_norm = 0;
  float largest_attn_norm = 0, largest_mlp_norm = 0;
};

struct ModelView {
  int32_t d = 0;         // hidden size
  int32_t m = 0;         // intermediate size
  int32_t heads = 0;
  int32_t head_dim = 0;  // K = V = d / heads
  int32_t vocab = 0;
  int32_t num_layers = 0;
  int32_t conv_size = 0;  // 0: none
  float norm_eps = 1e-6f;
  float g_norm_eps = 1e-5f;
  // g_norm's weights are multiplied into o's columns; what is left of that norm is its division.
  bool g_norm_in_o = false;
  DType activation_type = DType::kBF16;  // kF32 or kBF16: of products' inputs and outputs
  // Embeddings and head are never FP8: kF32 or kBF16.
  const void* embeddings = nullptr;  // [vocab, d]
  MatrixView lm_head;                // [vocab, d]; the embeddings if tied
  const float* final_norm = nullptr; // [d]
  const LayerView* layers = nullptr; // host array [num_layers]
};

}  // namespace hgrn2::cuda
