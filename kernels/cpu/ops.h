// Row-wise operations between the products of a layer. All float32 inside; rows of activations are
// padded with zeros to a multiple of kPadding elements, and stay so.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace hgrn2::cpu {

// y = x / sqrt(mean(x^2) + eps) * weight
struct RmsNormParams {
  const float* x = nullptr;       // [padded]
  const float* weight = nullptr;  // [padded]; all ones for a norm without weight
  int size = 0;                   // elements the mean is over
  int padded = 0;                 // multiple of kPadding; x is zero from size on
  float eps = 0;
  DType out_dtype = DType::kF32;  // kF32 or kBF16
  void* out = nullptr;            // [padded]
};
void RmsNorm(const RmsNormParams& params);

// swish(gate) * up of gate/up products, packed 16 gates | 16 ups per panel.
struct SwiGluParams {
  const float* gate_up = nullptr;  // [rows, ld]: [panels, 2, 16] in a row
  int64_t ld = 0;
  int rows = 0;
  int num_panels = 0;
  DType out_dtype = DType::kF32;
  void* out = nullptr;  // [rows, ldo]: [panels, 16] in a row
  int64_t ldo = 0;
};
void SwiGlu(const SwiGluParams& params);

// Depthwise causal convolution over one sequence's rows, in place, on a range of channels:
//   y_t = sum_j weight[j] * x_{t - (size - 1) + j}
// x before the first row is `history`, which is replaced by the last size - 1 inputs.
struct ShortConvParams {
  float* x = nullptr;  // [rows, ldx], first channel of the range
  int64_t ldx = 0;
  int rows = 0;
  int channels = 0;               // multiple of 16
  const float* weight = nullptr;  // [size, ldw], first channel of the range
  int64_t ldw = 0;
  int size = 0;              // 1..kMaxConvSize
  float* history = nullptr;  // [size - 1, ldw], oldest first
};
inline constexpr int kMaxConvSize = 64;
void ShortConv(const ShortConvParams& params);

// n elements of dtype (kF32, kF16, kBF16) to float and back, rounding to nearest even. Any
// alignment.
void ConvertToFloat(const void* from, DType dtype, int64_t n, float* to);
void ConvertFromFloat(const float* from, DType dtype, int64_t n, void* to);

}  // namespace hgrn2::cpu
