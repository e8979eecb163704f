#include "kernels/cpu/ops.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/reference/hgrn2_reference.h"
#include "tests/kernels_cpu/targets.h"

namespace hgrn2::cpu {
namespace {

class OpsTest : public EachTarget {};

AlignedBuffer<float> Normal(int n, float scale, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  AlignedBuffer<float> out(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) out[i] = normal(rng);
  return out;
}

TEST_P(OpsTest, RmsNorm) {
  for (const int size : {1, 20, 64, 100, 2048}) {
    const int padded = static_cast<int>(RoundUp(size, kPadding));
    AlignedBuffer<float> x = Normal(padded, 3, 1);
    for (int i = size; i < padded; ++i) x[i] = 0;
    const AlignedBuffer<float> weight = Normal(padded, 1, 2);
    AlignedBuffer<float> out(static_cast<size_t>(padded));
    RmsNorm({x.data(), weight.data(), size, padded, 1e-5f, DType::kF32, out.data()});
    std::vector<double> in(x.data(), x.data() + size), expected(in.size());
    reference::RmsNorm(in.data(), weight.data(), 1e-5f, size, expected.data());
    EXPECT_LE(RelativeError(out.data(), expected), 1e-6) << size;
    for (int i = size; i < padded; ++i) EXPECT_EQ(out[i], 0);
    std::vector<uint16_t> bf16(static_cast<size_t>(padded));
    RmsNorm({x.data(), weight.data(), size, padded, 1e-5f, DType::kBF16, bf16.data()});
    for (int i = 0; i < padded; ++i) ASSERT_EQ(bf16[i], FloatToBf16(out[i]));
  }
}

TEST_P(OpsTest, SwiGluOfExtremes) {
  constexpr int kRows = 3, kPanels = 2;
  AlignedBuffer<float> in = Normal(kRows * kPanels * 32, 5, 3);
  in[0] = 1e30f;
  in[1] = -1e30f;
  in[2] = -100;
  in[3] = 88.9f;
  in[16] = in[17] = in[18] = in[19] = 0.5f;
  AlignedBuffer<float> out(kRows * kPanels * 16);
  SwiGlu({in.data(), kPanels * 32, kRows, kPanels, DType::kF32, out.data(), kPanels * 16});
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kPanels * 16; ++c) {
      const float* panel = in.data() + r * kPanels * 32 + c / 16 * 32 + c % 16;
      const double expected = reference::Swish(panel[0]) * panel[16];
      EXPECT_NEAR(out[r * kPanels * 16 + c], expected, 1e-6 * std::abs(expected) + 1e-37);
    }
  }
}

TEST_P(OpsTest, ShortConvInPieces) {
  constexpr int kChannels = 32, kRows = 11;
  for (const int size : {1, 2, 4, 7}) {
    const AlignedBuffer<float> weight = Normal(size * kChannels, 1, 4);
    const AlignedBuffer<float> input = Normal(kRows * kChannels, 1, 5);
    AlignedBuffer<float> x(input.size());
    std::memcpy(x.data(), input.data(), input.size() * 4);
    AlignedBuffer<float> history(static_cast<size_t>(std::max(1, size - 1) * kChannels));
    for (int row = 0, rows = 1; row < kRows; row += rows, rows = std::min(rows + 2, kRows - row)) {
      ShortConv({x.data() + row * kChannels, kChannels, rows, kChannels, weight.data(), kChannels,
                 size, history.data()});
    }
    for (int t = 0; t < kRows; ++t) {
      for (int c = 0; c < kChannels; ++c) {
        double expected = 0;
        for (int j = 0; j < size; ++j) {
          const int from = t - (size - 1) + j;
          if (from >= 0)
            expected += double{weight[j * kChannels + c]} * input[from * kChannels + c];
        }
        ASSERT_NEAR(x[t * kChannels + c], expected, 1e-5) << "size " << size << " row " << t;
      }
    }
  }
}

TEST_P(OpsTest, ConversionsAgreeWithScalars) {
  std::vector<float> values = {0.0f,  -0.0f,    1.0f,   65504.0f, 65519.0f, 1e-8f,
                               3e-5f, -6.1e-5f, 0.333f, -2.7e-7f, 1e4f,     -1.5f};
  const AlignedBuffer<float> more = Normal(1000, 10, 6);
  values.insert(values.end(), more.data(), more.data() + more.size());
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<uint16_t> bits(values.size());
    ConvertFromFloat(values.data(), dtype, static_cast<int64_t>(values.size()), bits.data());
    std::vector<float> back(values.size());
    ConvertToFloat(bits.data(), dtype, static_cast<int64_t>(values.size()), back.data());
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t expected =
          dtype == DType::kF16 ? FloatToHalf(values[i]) : FloatToBf16(values[i]);
      // Without F16C, Highway drops the sign of zero and truncates float16's subnormals.
      const bool approximate = dtype == DType::kF16 && std::abs(values[i]) < 0x1p-14f;
      if (approximate) {
        ASSERT_NEAR(back[i], values[i], 0x1p-24f);
      } else {
        ASSERT_EQ(bits[i], expected) << Name(dtype) << " " << values[i];
        ASSERT_EQ(back[i], ToFloat(&expected, dtype)) << Name(dtype) << " " << values[i];
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, OpsTest, Targets(), TargetName);

TEST(ConversionTest, HalfRoundTripsEveryValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = HalfToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(FloatToHalf(value), bits);
  }
}

TEST(ConversionTest, Fp8) {
  EXPECT_EQ(Fp8E4M3ToFloat(0x38), 1.0f);
  EXPECT_EQ(Fp8E4M3ToFloat(0xB8), -1.0f);
  EXPECT_EQ(Fp8E4M3ToFloat(0x7E), 448.0f);
  EXPECT_EQ(Fp8E4M3ToFloat(0x01), 0x1p-9f);
  EXPECT_TRUE(std::isnan(Fp8E4M3ToFloat(0x7F)));
}

}  // namespace
}  // namespace hgrn2::cpu
