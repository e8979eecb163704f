// Conversions between float and the 16-bit formats of checkpoints, round to nearest even. For load
// time: nothing here is vectorised by hand.
#pragma once

#include <bit>
#include <cstdint>

namespace hgrn2 {

inline float BFloat16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// NaN stays NaN (quiet).
inline uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float Float16ToFloat(uint16_t bits);
uint16_t FloatToFloat16(float value);

}  // namespace hgrn2
