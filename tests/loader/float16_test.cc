#include "engine/loader/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

namespace hgrn2 {
namespace {

// The value by the definition of the format, in exact arithmetic.
double Float16ByDefinition(uint16_t bits) {
  const int exponent = bits >> 10 & 0x1f;
  const int fraction = bits & 0x3ff;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(Float16Test, EveryValueReadsAndReturns) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = Float16ToFloat(static_cast<uint16_t>(bits));
    const double expected = Float16ByDefinition(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_TRUE(std::isnan(Float16ToFloat(FloatToFloat16(value)))) << bits;
      continue;
    }
    EXPECT_EQ(value, expected) << bits;
    EXPECT_EQ(std::signbit(value), std::signbit(expected)) << bits;
    EXPECT_EQ(FloatToFloat16(value), bits);
  }
}

// Between two neighbours: below the middle rounds down, above up, the middle to the even one.
TEST(Float16Test, RoundsToNearestEven) {
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = Float16ToFloat(bits);
    const float high = Float16ToFloat(bits + 1);
    const float middle = (low + high) / 2;  // exact in float
    const uint16_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(FloatToFloat16(middle), even) << bits;
    ASSERT_EQ(FloatToFloat16(std::nextafter(middle, low)), bits) << bits;
    ASSERT_EQ(FloatToFloat16(std::nextafter(middle, high)), bits + 1) << bits;
    ASSERT_EQ(FloatToFloat16(-middle), even | 0x8000) << bits;
  }
}

TEST(Float16Test, Extremes) {
  EXPECT_EQ(FloatToFloat16(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToFloat16(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToFloat16(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(FloatToFloat16(-INFINITY), 0xfc00);
  EXPECT_EQ(FloatToFloat16(1e-30f), 0);
  EXPECT_EQ(FloatToFloat16(std::numeric_limits<float>::denorm_min()), 0);
}

TEST(BFloat16Test, EveryValueReturns) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = BFloat16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(value)))) << bits;
    } else {
      EXPECT_EQ(FloatToBFloat16(value), bits);
    }
  }
}

TEST(BFloat16Test, RoundsToNearestEven) {
  EXPECT_EQ(FloatToBFloat16(0x1.01p0f), 0x3f80);  // the middle of 1 and its neighbour: even
  EXPECT_EQ(FloatToBFloat16(0x1.03p0f), 0x3f82);
  EXPECT_EQ(FloatToBFloat16(0x1.010002p0f), 0x3f81);
  EXPECT_EQ(FloatToBFloat16(0x1.00fffep0f), 0x3f80);
  EXPECT_EQ(FloatToBFloat16(std::numeric_limits<float>::max()), 0x7f80);
}

}  // namespace
}  // namespace hgrn2
