#include "kernels/cuda/gemm/gemm.h"

#include "kernels/cuda/gemm/decode_gemm.h"
#include "kernels/cuda/mlp/mlp.h"
#include "tests/kernels_cuda/device_test.h"

namespace hgrn2::cuda {
namespace {

std::vector<double> Reference(const std::vector<double>& x, const std::vector<double>& w,
                              int64_t tokens, int64_t rows, int64_t cols) {
  std::vector<double> out(tokens * rows);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t k = 0; k < cols; ++k) sum += x[t * cols + k] * w[r * cols + k];
      out[t * rows + r] = sum;
    }
  }
  return out;
}

TEST(GemmTokenBucketTest, RoundsUpToFewSizes) {
  EXPECT_EQ(GemmTokenBucket(1), 8);
  EXPECT_EQ(GemmTokenBucket(9), 16);
  EXPECT_EQ(GemmTokenBucket(65), 128);
  EXPECT_EQ(GemmTokenBucket(257), 320);
  EXPECT_EQ(GemmTokenBucket(513), 640);
  EXPECT_EQ(GemmTokenBucket(1025), 1280);
  for (int64_t n = 1; n < 20000; n += 7) {
    EXPECT_GE(GemmTokenBucket(n), n);
    EXPECT_EQ(GemmTokenBucket(GemmTokenBucket(n)), GemmTokenBucket(n));
  }
}

TEST(ChooseDecodeGemmTest, FitsTheDevice) {
  for (const int64_t rows : {16, 64, 128, 320, 2048, 2560, 6144, 11264, 13824, 32000, 262144}) {
    for (const int64_t cols : {64, 192, 256, 2048, 5632, 6912}) {
      for (const int tokens :
           {1, 32, 33, 64, 100, 128, 129, 192, 256, 257, 320, 384, 512, 513, 896, 1024, 4096}) {
        for (const GemmEpilogue epilogue :
             {GemmEpilogue::kStore, GemmEpilogue::kSwiGlu, GemmEpilogue::kResidual}) {
          for (const DType type : {DType::kBF16, DType::kF8E4M3}) {
            if (epilogue == GemmEpilogue::kSwiGlu && rows % 32 != 0) continue;
            const DecodeGemmShape s = ChooseDecodeGemm(rows, cols, tokens, type, epilogue);
            EXPECT_GE(s.row_tile * s.row_tiles, rows);
            EXPECT_GE(s.token_tile() * s.token_tiles, tokens);
            EXPECT_LE(s.shared_bytes, 225u * 1024);
            EXPECT_GE(s.stages, 2);
            EXPECT_LE(s.stages, 16);
            EXPECT_LE(s.split, 4);
            EXPECT_GE(cols * static_cast<int64_t>(SizeOf(type)), 64 * s.split);
          }
        }
      }
    }
  }
}

TEST(ChooseDecodeGemmTest, RefusesWhatTheKernelCannotDo) {
  const auto tile = [](int64_t rows, int64_t cols, int tokens, DType type, GemmEpilogue epilogue) {
    return ChooseDecodeGemm(rows, cols, tokens, type, epilogue).row_tile;
  };
  EXPECT_GT(tile(112, 2048, 1, DType::kBF16, GemmEpilogue::kStore), 0);
  EXPECT_EQ(tile(104, 2048, 1, DType::kBF16, GemmEpilogue::kStore), 0);
  EXPECT_EQ(tile(112, 2048, 1, DType::kBF16, GemmEpilogue::kSwiGlu), 0);
  EXPECT_EQ(tile(128, 2004, 1, DType::kBF16, GemmEpilogue::kStore), 0);
  EXPECT_EQ(tile(128, 2008, 1, DType::kF8E4M3, GemmEpilogue::kStore), 0);
  EXPECT_EQ(tile(128, 2048, 0, DType::kBF16, GemmEpilogue::kStore), 0);
  EXPECT_EQ(tile(128, 2048, 1, DType::kF32, GemmEpilogue::kStore), 0);
}

// Cuts that were measured (docs/kernels/decode-gemm.md).
TEST(ChooseDecodeGemmTest, TakesTheFastestCuts) {
  const auto choose = [](int64_t rows, int64_t cols, int tokens, GemmEpilogue epilogue) {
    return ChooseDecodeGemm(rows, cols, tokens, DType::kBF16, epilogue);
  };
  const auto is = [](const DecodeGemmShape& s, int row_tile, int split, bool share) {
    return s.row_tile == row_tile && s.split == split && s.share == share;
  };
  EXPECT_TRUE(is(choose(2048, 2048, 256, GemmEpilogue::kResidual), 64, 2, false));
  EXPECT_TRUE(is(choose(2048, 5632, 256, GemmEpilogue::kResidual), 64, 2, false));
  EXPECT_TRUE(is(choose(11264, 2048, 64, GemmEpilogue::kSwiGlu), 96, 1, false));
  EXPECT_TRUE(is(choose(32000, 2048, 64, GemmEpilogue::kStore), 128, 1, true));
  // More tiles of 192 rows than multiprocessors, in two waves: 5 % of a step slower.
  EXPECT_TRUE(is(choose(13824, 2560, 256, GemmEpilogue::kSwiGlu), 128, 1, true));
  const auto is_wide = [](const DecodeGemmShape& s, int row_tile, bool together) {
    return s.wide && s.row_tile == row_tile && s.together == together;
  };
  EXPECT_TRUE(is_wide(choose(6144, 2048, 256, GemmEpilogue::kStore), 128, true));
  EXPECT_TRUE(is_wide(choose(11264, 2048, 256, GemmEpilogue::kSwiGlu), 192, true));
  EXPECT_TRUE(is_wide(choose(6144, 2048, 1024, GemmEpilogue::kStore), 192, true));
  EXPECT_TRUE(is_wide(choose(11264, 2048, 1024, GemmEpilogue::kSwiGlu), 192, false));
  EXPECT_TRUE(is_wide(choose(2048, 2048, 1024, GemmEpilogue::kResidual), 128, true));
  EXPECT_FALSE(choose(11264, 2048, 384, GemmEpilogue::kSwiGlu).wide);
  const auto columns = [&](int64_t rows, int64_t cols, int tokens, GemmEpilogue epilogue) {
    return choose(rows, cols, tokens, epilogue).columns;
  };
  EXPECT_EQ(columns(11264, 2048, 320, GemmEpilogue::kSwiGlu), 160);
  EXPECT_EQ(columns(11264, 2048, 192, GemmEpilogue::kSwiGlu), 96);
  EXPECT_EQ(columns(2048, 5632, 192, GemmEpilogue::kResidual), 96);
  EXPECT_EQ(columns(2048, 5632, 320, GemmEpilogue::kResidual), 0);
  EXPECT_EQ(columns(11264, 2048, 384, GemmEpilogue::kSwiGlu), 0);
  EXPECT_EQ(columns(2560, 6912, 192, GemmEpilogue::kResidual), 0);  // two turns
}

TEST(ChooseDecodeGemmTest, IsPreferredWhereItIsFaster) {
  const auto prefers = [](int64_t rows, int64_t cols, int64_t tokens, DType type) {
    return PreferDecodeGemm(rows, cols, tokens, type, GemmEpilogue::kStore);
  };
  for (const DType type : {DType::kBF16, DType::kF8E4M3}) {
    EXPECT_TRUE(prefers(6144, 2048, 8, type));
    EXPECT_TRUE(prefers(6144, 2048, 64, type));
    EXPECT_TRUE(prefers(6144, 2048, 128, type));
    EXPECT_TRUE(prefers(2048, 5632, 512, type));
    EXPECT_FALSE(prefers(2048, 2046, 8, type));
  }
  EXPECT_FALSE(prefers(2048, 2048, 8, DType::kF32));
  EXPECT_FALSE(prefers(2048, 5632, 1025, DType::kBF16));
  EXPECT_FALSE(prefers(2048, 5632, 1025, DType::kF8E4M3));
  const auto swiglu = [](int64_t rows, int64_t cols, int64_t tokens, DType type) {
    return PreferDecodeGemm(rows, cols, tokens, type, GemmEpilogue::kSwiGlu);
  };
  // 144 blocks of two waves are not, but in FP8; nor are 144 pairs of three turns, or 216 of four,
  // of which a sixth has no tokens.
  EXPECT_TRUE(swiglu(11264, 2048, 512, DType::kBF16));
  EXPECT_FALSE(swiglu(13824, 2560, 384, DType::kBF16));
  EXPECT_FALSE(swiglu(13824, 2560, 512, DType::kBF16));
  EXPECT_FALSE(swiglu(13824, 2560, 640, DType::kBF16));
  EXPECT_TRUE(swiglu(13824, 2560, 384, DType::kF8E4M3));
  // Prompts: SwiGLU alone. 80 pairs of two turns: SwiGLU alone, too.
  EXPECT_TRUE(swiglu(11264, 2048, 16384, DType::kBF16));
  EXPECT_TRUE(swiglu(13824, 2560, 1024, DType::kBF16));
  for (const DType type : {DType::kBF16, DType::kF8E4M3})
    EXPECT_FALSE(PreferDecodeGemm(2560, 2560, 1024, type, GemmEpilogue::kResidual));
  // The head stays cuBLASLt's beyond 128 tokens.
  EXPECT_FALSE(prefers(32000, 2048, 256, DType::kBF16));
}

class GemmTest : public DeviceTest {};

TEST_F(GemmTest, Float32) {
  DeviceArray<uint8_t> workspace(Gemm::kWorkspaceBytes);
  Gemm gemm;
  ASSERT_EQ(gemm.Init(workspace.get()), "");
  for (const int64_t tokens : {8, 16, 384}) {
    const int64_t rows = 101, cols = 136;
    const auto x = Normal(tokens * cols, 1), w = Normal(rows * cols, 2);
    DeviceArray<float> dx(x), dw(w), out(tokens * rows);
    const MatrixView view = {dw.get(), nullptr, DType::kF32, rows, cols};
    ASSERT_EQ(gemm.Run({view, dx.get(), nullptr, out.get(), DType::kF32, tokens}, nullptr), "");
    EXPECT_LE(RelativeError(ToDouble(out.Read()),
                            Reference(ToDouble(x), ToDouble(w), tokens, rows, cols)),
              1e-6);
  }
}

TEST_F(GemmTest, Bfloat16) {
  DeviceArray<uint8_t> workspace(Gemm::kWorkspaceBytes);
  Gemm gemm;
  ASSERT_EQ(gemm.Init(workspace.get()), "");
  for (const int64_t rows : {1, 101, 192}) {
    const int64_t tokens = 64, cols = 136;
    const auto x = ToBf16(Normal(tokens * cols, 1)), w = ToBf16(Normal(rows * cols, 2));
    DeviceArray<__nv_bfloat16> dx(x), dw(w);
    DeviceArray<float> out(tokens * rows);
    const MatrixView view = {dw.get(), nullptr, DType::kBF16, rows, cols};
    ASSERT_EQ(gemm.Run({view, dx.get(), nullptr, out.get(), DType::kF32, tokens}, nullptr), "");
    EXPECT_LE(RelativeError(ToDouble(out.Read()),
                            Reference(ToDouble(x), ToDouble(w), tokens, rows, cols)),
              1e-5);
  }
}

struct Fp8Operand {
  Fp8Operand(const std::vector<float>& values, int64_t rows, int64_t cols)
      : data(rows * cols), scale(rows) {
    DeviceArray<float> source(values);
    EXPECT_EQ(
        QuantizeRows({source.get(), DType::kF32, data.get(), scale.get(), rows, cols}, nullptr),
        cudaSuccess);
    const auto q = data.Read();
    const auto s = scale.Read();
    for (int64_t i = 0; i < rows * cols; ++i) {
      exact.push_back(static_cast<double>(static_cast<float>(q[i])) * s[i / cols]);
    }
    // Three bits of mantissa: half a unit in the last place is 1/16 at most.
    EXPECT_LE(RelativeError(exact, ToDouble(values)), 0.04);
  }
  DeviceArray<__nv_fp8_e4m3> data;
  DeviceArray<float> scale;
  std::vector<double> exact;
};

TEST_F(GemmTest, Fp8) {
  if (!hopper_) GTEST_SKIP() << "row-scaled FP8 products need compute capability 9.0";
  DeviceArray<uint8_t> workspace(Gemm::kWorkspaceBytes);
  Gemm gemm;
  ASSERT_EQ(gemm.Init(workspace.get()), "");
  const int64_t tokens = 64, rows = 256, cols = 512;
  const Fp8Operand x(Normal(tokens * cols, 1), tokens, cols), w(Normal(rows * cols, 2), rows, cols);
  DeviceArray<__nv_bfloat16> out(tokens * rows);
  const MatrixView view = {w.data.get(), w.scale.get(), DType::kF8E4M3, rows, cols};
  ASSERT_EQ(gemm.Run({view, x.data.get(), x.scale.get(), out.get(), DType::kBF16, tokens}, nullptr),
            "");
  const auto expected = Reference(x.exact, w.exact, tokens, rows, cols);
  EXPECT_LE(RelativeError(ToDouble(out.Read()), expected), 5e-3);

  GemmParams unscaled = {view, x.data.get(), nullptr, out.get(), DType::kBF16, tokens};
  unscaled.unscaled = true;
  ASSERT_EQ(gemm.Run(unscaled, nullptr), "");
  auto scaled = ToDouble(out.Read());
  const auto x_scale = x.scale.Read(), w_scale = w.scale.Read();
  for (int64_t i = 0; i < tokens * rows; ++i) scaled[i] *= x_scale[i / rows] * w_scale[i % rows];
  EXPECT_LE(RelativeError(scaled, expected), 5e-3);
}

}  // namespace
}  // namespace hgrn2::cuda
