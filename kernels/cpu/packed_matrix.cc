#include "kernels/cpu/packed_matrix.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_info.h"

namespace hgrn2::cpu {

DType ActivationDType(DType weights) {
  return weights == DType::kBF16 && HasBf16DotProducts() ? DType::kBF16 : DType::kF32;
}

PackedMatrix::PackedMatrix(int64_t columns, int64_t k, DType dtype)
    : dtype_(dtype),
      activation_dtype_(ActivationDType(dtype)),
      num_panels_(static_cast<int>(RoundUp(columns, kPanelColumns) / kPanelColumns)),
      k_(k),
      k_padded_(RoundUp(k, kPadding)),
      panel_bytes_(k_padded_ * kPanelColumns * static_cast<int64_t>(SizeOf(dtype))) {
  bytes_ = AlignedBuffer<uint8_t>(static_cast<size_t>(panel_bytes_ * num_panels_));
}

void PackedMatrix::SetColumn(int64_t column, const void* row, DType row_dtype) {
  uint8_t* panel = bytes_.data() + column / kPanelColumns * panel_bytes_;
  const int64_t c = column % kPanelColumns;
  const auto* src = static_cast<const uint8_t*>(row);
  const size_t size = SizeOf(row_dtype);
  for (int64_t k = 0; k < k_; ++k) {
    if (dtype_ == DType::kF32) {
      reinterpret_cast<float*>(panel)[k * kPanelColumns + c] = ToFloat(src + k * size, row_dtype);
      continue;
    }
    uint16_t bits;
    if (row_dtype == DType::kBF16) {
      std::memcpy(&bits, src + k * 2, 2);
    } else {
      bits = FloatToBf16(ToFloat(src + k * size, row_dtype));
    }
    reinterpret_cast<uint16_t*>(panel)[(k / 2 * kPanelColumns + c) * 2 + k % 2] = bits;
  }
}

float ToFloat(const void* element, DType dtype) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, element, 4);
    return value;
  }
  if (dtype == DType::kF8E4M3) return Fp8E4M3ToFloat(*static_cast<const uint8_t*>(element));
  uint16_t bits;
  std::memcpy(&bits, element, 2);
  if (dtype == DType::kF16) return HalfToFloat(bits);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

float HalfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 0x1F;
  const uint32_t mantissa = bits & 0x3FF;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t e = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | e << 23 | mantissa << 13);
}

uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7E00;
  if (magnitude >= 65520.0f) return sign | 0x7C00;
  if (magnitude < 0x1p-14f) {  // subnormal: a multiple of 2^-24, nearest even
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f)));
  }
  const uint32_t m = bits & 0x7FFFFFFF;
  const uint32_t rounded = m + 0xFFF + (m >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - (112u << 23)) >> 13);
}

uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float Fp8E4M3ToFloat(uint8_t bits) {
  const int exponent = bits >> 3 & 0xF;
  const int mantissa = bits & 7;
  float magnitude;
  if (exponent == 15 && mantissa == 7) {
    magnitude = std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -9);
  } else {
    magnitude = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  }
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

}  // namespace hgrn2::cpu
