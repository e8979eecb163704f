// Weights of y = x W^T, laid out once at load so that a product streams them front to back.
#pragma once

#include <cstdint>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/dtype.h"

namespace hgrn2::cpu {

inline constexpr int kPanelColumns = 32;  // output columns of a panel
inline constexpr int kPadding = 32;       // rows of activations are padded to this many elements

constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// The left operand's element type in products with `weights` (kF32 or kBF16) on this machine: kBF16
// with AVX512_BF16 and bfloat16 weights (both operands of its dot product are), else kF32. Slow:
// CPUID traps in virtual machines.
DType ActivationDType(DType weights);

// Panels of 32 output columns (rows of W), zero-padded in both directions:
//   kF32:  float    [columns / 32][k_padded][32]
//   kBF16: bfloat16 [columns / 32][k_padded / 2][32][2], the pairs AVX512_BF16 multiplies
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // `columns` outputs (rounded up to panels), `k` inputs. dtype: kF32 or kBF16.
  PackedMatrix(int64_t columns, int64_t k, DType dtype);

  // Fills output column `column` from k contiguous elements in a checkpoint's dtype (aligned to
  // nothing). bfloat16 rounds to nearest even. Distinct columns may be set concurrently.
  void SetColumn(int64_t column, const void* row, DType row_dtype);

  DType dtype() const { return dtype_; }
  DType activation_dtype() const {
    return activation_dtype_;
  }  // ActivationDType of dtype, at construction
  int num_panels() const { return num_panels_; }
  int64_t k_padded() const { return k_padded_; }
  const void* panel(int64_t index) const { return bytes_.data() + index * panel_bytes_; }
  int64_t panel_bytes() const { return panel_bytes_; }
  int64_t bytes() const { return static_cast<int64_t>(bytes_.size()); }

 private:
  AlignedBuffer<uint8_t> bytes_;
  DType dtype_ = DType::kF32;
  DType activation_dtype_ = DType::kF32;
  int num_panels_ = 0;
  int64_t k_ = 0;
  int64_t k_padded_ = 0;
  int64_t panel_bytes_ = 0;
};

// Element conversions for load time and state blobs.
float ToFloat(const void* element, DType dtype);
float HalfToFloat(uint16_t bits);
uint16_t FloatToHalf(float value);
uint16_t FloatToBf16(float value);
float Fp8E4M3ToFloat(uint8_t bits);

}  // namespace hgrn2::cpu
