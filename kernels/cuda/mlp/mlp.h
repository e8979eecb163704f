// Elementwise parts of a step outside the recurrence: token embedding, SwiGLU, and load-time
// conversion and quantisation of weights.
#pragma once

#include "kernels/cuda/common.h"

namespace hgrn2::cuda {

// The beginning of a step: x[t] = table[token], token = tokens[t] >= 0 ? tokens[t] :
// last_token[slots[t]]; rows whose slot is negative become zeros. Counts the step.
struct EmbedParams {
  const void* table = nullptr;          // [vocab, d], table_type
  DType table_type = DType::kBF16;      // kF32 or kBF16
  const int32_t* tokens = nullptr;      // [rows]
  const int32_t* slots = nullptr;       // [rows]
  const int32_t* last_token = nullptr;  // [num_slots]
  float* x = nullptr;                   // [rows, d], or null: no rows, resolved only
  int32_t* resolved = nullptr;          // [rows] the token ids (0 for padding), or null
  uint32_t* step = nullptr;             // incremented; or null
  int64_t rows = 0;
  int32_t d = 0;  // a multiple of 8
};
cudaError_t Embed(const EmbedParams& params, cudaStream_t stream);

// out = swish(gate) * up of rows [gate | up].
struct SwiGluParams {
  const void* gate_up = nullptr;  // [rows, 2 m], type
  DType type = DType::kBF16;      // kF32 or kBF16
  void* out = nullptr;            // [rows, m], out_type
  DType out_type = DType::kBF16;  // type, or kF8E4M3 with out_scale
  float* out_scale = nullptr;     // [rows]
  int64_t rows = 0;               // at most 65535
  int32_t m = 0;                  // a multiple of 8; kF8E4M3: at most 32768
  bool overlap = false;
  // [rows] and [2 m], or both null: gate_up[t][c] row_scale[t] col_scale[c] counts as
  // gate_up[t][c]. kF8E4M3 only.
  const float* row_scale = nullptr;
  const float* col_scale = nullptr;
};
cudaError_t SwiGlu(const SwiGluParams& params, cudaStream_t stream);

// dst[i] = src[i] between kF32, kF16 and kBF16.
struct ConvertParams {
  const void* src = nullptr;
  DType src_type = DType::kF32;
  void* dst = nullptr;
  DType dst_type = DType::kBF16;
  int64_t size = 0;
};
cudaError_t Convert(const ConvertParams& params, cudaStream_t stream);

// dst[r][c] = e4m3(src[r][c] / scale[r]), scale[r] = max |src[r]| / 448. With col_factor,
// src[r][c] col_factor[c] counts as src[r][c].
struct QuantizeRowsParams {
  const void* src = nullptr;  // [rows, cols], kF32, kF16 or kBF16
  DType src_type = DType::kBF16;
  void* dst = nullptr;     // [rows, cols] e4m3
  float* scale = nullptr;  // [rows]
  int64_t rows = 0;
  int64_t cols = 0;
  const float* col_factor = nullptr;  // [cols] or null
};
cudaError_t QuantizeRows(const QuantizeRowsParams& params, cudaStream_t stream);

}  // namespace hgrn2::cuda
