#include "kernels/cuda/gemm/decode_gemm.h"

#include <algorithm>
#include <map>
#include <memory>
#include <ostream>
#include <tuple>

#include "kernels/cuda/gemm/fp8_range.h"
#include "kernels/cuda/mlp/mlp.h"
#include "tests/kernels_cuda/device_test.h"

namespace hgrn2::cuda {
namespace {

struct Case {
  int tokens;
  int64_t rows, cols;
  DecodeGemmShape shape = {};  // row_tile 0: the one that is chosen
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.tokens << " x " << c.cols << " -> " << c.rows << ", tile " << c.shape.row_tile
             << " x " << c.shape.token_tile() << ", split " << c.shape.split << ", stages "
             << c.shape.stages << (c.shape.wide ? ", wide" : "")
             << (c.shape.together ? ", together" : "") << (c.shape.columns > 0 ? ", columns" : "");
}

DType TypeOf(bool fp8) { return fp8 ? DType::kF8E4M3 : DType::kBF16; }
DecodeGemmShape Tile(int rows, int tokens, int split, int stages) {
  DecodeGemmShape s;
  s.row_tile = rows, s.groups = tokens / 64, s.split = split, s.stages = stages;
  return s;
}

// Awkward sizes with the chosen tiles, then every kind of cut.
std::vector<Case> Cases(GemmEpilogue epilogue, bool fp8) {
  std::vector<Case> cases = {
      {8, 128, 64},     {1, 256, 1024},   {48, 384, 2048},  {64, 2048, 704},  {128, 256, 960},
      {96, 128, 4096},  {100, 1024, 192}, {32, 512, 1088},  {128, 640, 1280}, {33, 320, 448},
      {100, 6144, 256}, {128, 512, 2048}, {17, 224, 208},   {80, 1600, 528},  {64, 1056, 2560},
      {256, 640, 1280}, {192, 2048, 704}, {129, 352, 4096}, {250, 6144, 192}, {257, 640, 1280},
      {384, 2048, 704}, {300, 352, 4096}, {512, 704, 1280}, {449, 352, 640},  {896, 416, 512}};
  // More tiles than multiprocessors: two blocks on each.
  if (epilogue != GemmEpilogue::kResidual) {
    cases.push_back({50, 20000, 144}), cases.push_back({100, 20000, 144});
  }
  for (const int row_tile : kDecodeGemmRowTiles) {
    for (const int split : kDecodeGemmSplits) {
      for (const int stages : {0, 2}) {
        for (const Case& c : {Case{31, 416, 1408, Tile(row_tile, 64, split, stages)},
                              {100, 608, 528, Tile(row_tile, 128, split, stages)},
                              {200, 608, 1040, Tile(row_tile, 128, split, stages)},
                              {330, 608, 1040, Tile(row_tile, 192, split, stages)}}) {
          if (IsBuilt(row_tile, c.shape.groups, split, epilogue)) cases.push_back(c);
        }
      }
    }
  }
  std::erase_if(cases, [&](const Case& c) { return fp8 && c.shape.groups > 2; });
  return cases;
}

// Of the kernel for many tokens.
std::vector<Case> WideCases(GemmEpilogue epilogue) {
  std::vector<Case> cases;
  for (const int row_tile : kWideGemmRowTiles) {
    if (!IsBuiltWide(row_tile, epilogue)) continue;
    for (const bool together : {false, true}) {
      DecodeGemmShape s;
      s.wide = true, s.row_tile = row_tile, s.together = together;
      // Fewer pairs than places, a block without tokens; several tiles a block, of more k-blocks
      // than stages and of one.
      cases.push_back({100, 608, 528, s}), cases.push_back({330, 1056, 96, s});
      cases.push_back({1100, 2560, 1120, s}), cases.push_back({1100, 12288, 64, s});
    }
  }
  return cases;
}

// Of the kernel with tokens in columns.
std::vector<Case> ColumnCases(GemmEpilogue epilogue) {
  std::vector<Case> cases;
  for (const int columns : kColumnGemmTiles) {
    if (!IsBuiltColumns(columns, epilogue)) continue;
    for (const int stages : {0, 2}) {
      DecodeGemmShape s;
      s.columns = columns, s.stages = stages;
      // Whole tiles; tokens, rows and columns past the end; few of either.
      cases.push_back({320, 1408, 416, s}), cases.push_back({330, 608, 1040, s});
      cases.push_back({21, 32, 144, s}), cases.push_back({columns + 1, 96, 2560, s});
    }
  }
  return cases;
}

// REQUIRES: n % 8 == 0.
double Dot(const double* a, const double* b, int64_t n) {
  double parts[8] = {};
  for (int64_t k = 0; k < n; k += 8) {
    for (int j = 0; j < 8; ++j) parts[j] += a[k + j] * b[k + j];
  }
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}
double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

float LargestNorm(const std::vector<double>& rows, int64_t cols) {
  return static_cast<float>(std::ranges::max(RowNorms(rows, cols)));
}

// x and W as the device has them, and what is to come out.
class DecodeGemmFp8Test : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    if (!hopper_) GTEST_SKIP() << "wgmma needs compute capability 9.0";
    ASSERT_CUDA(InitDecodeGemm());
  }

  struct Operand {
    // Rows behind them are NaN.
    Operand(int64_t rows, int64_t cols, uint32_t seed, bool fp8)
        : bytes((rows + kDecodeGemmTokenTile) * cols * (fp8 ? 1 : 2)), scale(rows) {
      const auto values = Normal(rows * cols, seed);
      if (!fp8) {
        const auto rounded = ToBf16(values);
        exact = ToDouble(rounded);
        EXPECT_EQ(cudaMemcpy(bytes.get(), rounded.data(), rounded.size() * 2, cudaMemcpyDefault),
                  cudaSuccess);
        return;
      }
      DeviceArray<float> source(values);
      EXPECT_EQ(
          QuantizeRows({source.get(), DType::kF32, bytes.get(), scale.get(), rows, cols}, nullptr),
          cudaSuccess);
      const auto q = bytes.Read();
      const auto s = scale.Read();
      for (int64_t i = 0; i < rows * cols; ++i) {
        __nv_fp8_e4m3 value;
        value.__x = q[i];
        exact.push_back(static_cast<double>(static_cast<float>(value)) * s[i / cols]);
      }
    }
    DeviceArray<uint8_t> bytes;
    DeviceArray<float> scale;
    std::vector<double> exact;
  };

  // Every token's sums of a fresh product.
  struct Problem {
    Problem(const Case& c, bool fp8)
        : c(c), x(c.tokens, c.cols, 1, fp8), w(c.rows, c.cols, 2, fp8), sums(Sums(fp8)) {
      params.weight = {w.bytes.get(), fp8 ? w.scale.get() : nullptr, TypeOf(fp8), c.rows, c.cols};
      params.x = x.bytes.get();
      params.x_scale = x.scale.get();
      params.tokens = c.tokens;
    }
    // Computed once for all cuts of a product.
    const std::vector<double>& Sums(bool fp8) const {
      static std::map<std::tuple<bool, int, int64_t, int64_t>, std::vector<double>> known;
      std::vector<double>& found = known[{fp8, c.tokens, c.rows, c.cols}];
      if (!found.empty()) return found;
      found.resize(c.tokens * c.rows);
      for (int64_t t = 0; t < c.tokens; ++t) {
        for (int64_t r = 0; r < c.rows; ++r) {
          found[t * c.rows + r] = Dot(&x.exact[t * c.cols], &w.exact[r * c.cols], c.cols);
        }
      }
      return found;
    }
    // Divides the sums by norms that `n` partial sums of about `square` make up.
    void DivideByNorms(int n, float square = 40) {
      const auto squares = Normal(c.tokens * n, 5);
      std::vector<float> positive;
      for (const float v : squares) positive.push_back(v * v * square);
      norm_parts.reset(new DeviceArray<float>(positive));
      params.square_sums = norm_parts->get();
      params.num_square_sums = n;
      params.eps = 1e-3f;
      for (int64_t t = 0; t < c.tokens; ++t) {
        double sum = 0;
        for (int i = 0; i < n; ++i) sum += positive[t * n + i];
        const double scale = 1 / std::sqrt(sum / static_cast<double>(c.cols) + 1e-3);
        for (int64_t r = 0; r < c.rows; ++r) sums[t * c.rows + r] *= scale;
      }
    }
    DecodeGemmShape Shape() const {
      if (c.shape.row_tile == 0) {
        return ChooseDecodeGemm(c.rows, c.cols, c.tokens, params.weight.type, params.epilogue);
      }
      return CompleteDecodeGemm(c.shape, c.rows, c.cols, c.tokens, params.weight.type,
                                params.epilogue);
    }
    cudaError_t Run() { return DecodeGemm(params, Shape(), nullptr); }
    Case c;
    Operand x, w;
    std::vector<double> sums;
    std::unique_ptr<DeviceArray<float>> norm_parts;
    DecodeGemmParams params;
  };
};

class DecodeGemmTest : public DecodeGemmFp8Test, public ::testing::WithParamInterface<bool> {
 protected:
  bool fp8() const { return GetParam(); }
  double tolerance() const { return fp8() ? 5e-3 : 1e-5; }
  void Stores(const std::vector<Case>& cases) const;
  void SwiGlu(const std::vector<Case>& cases) const;
  void AddsToTheResidual(const std::vector<Case>& cases, int norm_parts = 0) const;
};

TEST_P(DecodeGemmTest, Stores) { Stores(Cases(GemmEpilogue::kStore, fp8())); }
TEST_P(DecodeGemmTest, StoresWide) { Stores(WideCases(GemmEpilogue::kStore)); }
void DecodeGemmTest::Stores(const std::vector<Case>& cases) const {
  for (const Case& c : cases) {
    Problem problem(c, fp8());
    DeviceArray<__nv_bfloat16> out(c.tokens * c.rows);
    DeviceArray<float> wide(c.tokens * c.rows);
    problem.params.out = out.get();
    ASSERT_CUDA(problem.Run()) << c;
    problem.params.out = wide.get();
    problem.params.out_type = DType::kF32;
    problem.params.overlap = true;
    ASSERT_CUDA(problem.Run()) << c;
    EXPECT_LE(RelativeError(ToDouble(out.Read()), problem.sums), fp8() ? 6e-3 : 3e-3) << c;
    EXPECT_LE(RelativeError(ToDouble(wide.Read()), problem.sums), tolerance()) << c;
  }
}

TEST_P(DecodeGemmTest, DividesByTheNorm) {
  for (const int n : {1, 16, 66, 80, 132}) {
    Problem problem({70, 272, 1040}, fp8());
    problem.DivideByNorms(n);
    DeviceArray<float> out(70 * 272);
    problem.params.out = out.get();
    problem.params.out_type = DType::kF32;
    ASSERT_CUDA(problem.Run());
    EXPECT_LE(RelativeError(ToDouble(out.Read()), problem.sums), tolerance()) << n;
  }
}

TEST_P(DecodeGemmTest, SwiGlu) { SwiGlu(Cases(GemmEpilogue::kSwiGlu, fp8())); }
TEST_P(DecodeGemmTest, SwiGluWide) { SwiGlu(WideCases(GemmEpilogue::kSwiGlu)); }
TEST_P(DecodeGemmTest, SwiGluInColumns) {
  if (fp8()) GTEST_SKIP() << "bfloat16";
  SwiGlu(ColumnCases(GemmEpilogue::kSwiGlu));
}
void DecodeGemmTest::SwiGlu(const std::vector<Case>& cases) const {
  for (const Case& c : cases) {
    Problem problem(c, fp8());
    // FP8: sums of about 3, few of which lead beyond 448.
    const float cols = static_cast<float>(c.cols);
    problem.DivideByNorms(8, fp8() ? cols * cols / 72 : 40);
    const int64_t m = c.rows / 2;
    DeviceArray<__nv_bfloat16> wide(c.tokens * m);
    DeviceArray<__nv_fp8_e4m3> out(c.tokens * m);
    DeviceArray<uint32_t> squares(std::vector<uint32_t>(c.tokens * kSquareStride, 0));
    problem.params.epilogue = GemmEpilogue::kSwiGlu;
    problem.params.out = fp8() ? static_cast<void*>(out.get()) : wide.get();
    problem.params.squares = squares.get();
    ASSERT_CUDA(problem.Run()) << c;
    std::vector<double> expected, expected_squares;
    for (int64_t t = 0; t < c.tokens; ++t) {
      double sum = 0;
      for (int64_t r = 0; r < m; ++r) {
        const double gate = problem.sums[t * c.rows + r], up = problem.sums[t * c.rows + m + r],
                     act = gate * Sigmoid(gate) * up;
        expected.push_back(fp8() ? std::clamp(act, -448.0, 448.0) : act);
        sum += act * act;
      }
      expected_squares.push_back(sum);
    }
    if (!fp8()) {
      EXPECT_LE(RelativeError(ToDouble(wide.Read()), expected), 4e-3) << c;
      continue;
    }
    EXPECT_LE(RelativeError(ToDouble(out.Read()), expected), 4e-2) << c;
    // Every block rounds up.
    const auto sums = squares.Read();
    const double blocks = static_cast<double>(CeilDiv(m, 16));
    ASSERT_EQ(SwiGluSquareUnit(m), 1);
    for (int64_t t = 0; t < c.tokens; ++t) {
      EXPECT_GE(sums[t * kSquareStride], expected_squares[t] * 0.97) << c;
      EXPECT_LE(sums[t * kSquareStride], expected_squares[t] * 1.03 + blocks) << c;
    }
  }
}

TEST_P(DecodeGemmTest, AddsToTheResidual) {
  AddsToTheResidual(Cases(GemmEpilogue::kResidual, fp8()));
}
TEST_P(DecodeGemmTest, AddsToTheResidualWide) {
  AddsToTheResidual(WideCases(GemmEpilogue::kResidual));
}
TEST_P(DecodeGemmTest, AddsToTheResidualInColumns) {
  if (fp8()) GTEST_SKIP() << "bfloat16";
  for (const int norm_parts : {0, 16, 66, 80}) {
    AddsToTheResidual(ColumnCases(GemmEpilogue::kResidual), norm_parts);
  }
}
void DecodeGemmTest::AddsToTheResidual(const std::vector<Case>& cases, int norm_parts) const {
  for (const Case& c : cases) {
    Problem problem(c, fp8());
    if (norm_parts > 0) problem.DivideByNorms(norm_parts);
    const auto before = Normal(c.tokens * c.rows, 6), norm = Normal(c.rows, 7);
    const int64_t parts = CeilDiv(c.rows, kSquareSumRows);
    DeviceArray<float> residual(before), weight(norm), squares(c.tokens * parts);
    DeviceArray<__nv_bfloat16> wide(c.tokens * c.rows);
    DeviceArray<__nv_fp8_e4m3> narrow(c.tokens * c.rows);
    problem.params.epilogue = GemmEpilogue::kResidual;
    problem.params.residual = residual.get();
    ASSERT_CUDA(problem.Run()) << c;  // without a norm behind it
    problem.params.next_norm = weight.get();
    problem.params.out = fp8() ? static_cast<void*>(narrow.get()) : wide.get();
    problem.params.square_sums_out = squares.get();
    std::vector<double> once = ToDouble(before);
    for (size_t i = 0; i < once.size(); ++i) once[i] += problem.sums[i];
    const auto exact_norms = RowNorms(once, c.rows);
    const std::vector<float> norms(exact_norms.begin(), exact_norms.end());
    DeviceArray<float> residual_norm(norms), out_scale(c.tokens);
    problem.params.residual_norm = residual_norm.get();
    problem.params.out_scale = out_scale.get();
    // The input's norm is only about sqrt(cols).
    problem.params.largest_row_norm = 1.3f * LargestNorm(problem.w.exact, c.cols);
    problem.params.largest_next_norm = LargestNorm(ToDouble(norm), 1);
    ASSERT_CUDA(problem.Run()) << c;
    std::vector<double> x, scaled, sums(c.tokens * parts);
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int64_t r = 0; r < c.rows; ++r) {
        const double v = before[t * c.rows + r] + 2 * problem.sums[t * c.rows + r];
        x.push_back(v);
        scaled.push_back(v * norm[r]);
        sums[t * parts + r / kSquareSumRows] += v * v;
      }
    }
    EXPECT_LE(RelativeError(ToDouble(residual.Read()), x), tolerance()) << c;
    EXPECT_LE(RelativeError(ToDouble(squares.Read()), sums), 2 * tolerance()) << c;
    if (!fp8()) {
      EXPECT_LE(RelativeError(ToDouble(wide.Read()), scaled), 3e-3) << c;
      continue;
    }
    auto out = ToDouble(narrow.Read());
    const auto scale = out_scale.Read();
    for (int64_t t = 0; t < c.tokens; ++t) {
      const float most =
          problem.params.largest_next_norm * (norms[t] + 1.07f * problem.params.largest_row_norm *
                                                             std::sqrt(static_cast<float>(c.cols)));
      EXPECT_NEAR(scale[t], most / 448, 1e-5f * scale[t]);
      for (int64_t r = 0; r < c.rows; ++r) {
        EXPECT_LT(std::abs(out[t * c.rows + r]), 448) << c << ", limited";
        out[t * c.rows + r] *= scale[t];
      }
    }
    EXPECT_LE(RelativeError(out, scaled), 4e-2) << c;
  }
}

// FP8: the norms that square sums tell, and a bound by the squares of the input.
TEST_F(DecodeGemmFp8Test, KnowsTheNormOfItsInput) {
  Problem problem({100, 256, 1024}, true);
  problem.DivideByNorms(72);
  DeviceArray<float> residual(std::vector<float>(100 * 256, 0.0f)), norm_out(100), out_scale(100),
      residual_norm(std::vector<float>(100, 2.0f)), weight(std::vector<float>(256, 1.0f)),
      square_sums(100 * 8);
  std::vector<uint32_t> input(100 * kSquareStride);
  for (int t = 0; t < 100; ++t) input[t * kSquareStride] = 100 + t * t;
  DeviceArray<uint32_t> squares(input), next(input);
  DeviceArray<__nv_fp8_e4m3> out(100 * 256);
  DecodeGemmParams& p = problem.params;
  p.epilogue = GemmEpilogue::kResidual;
  p.residual = residual.get(), p.next_norm = weight.get(), p.out = out.get();
  p.square_sums_out = square_sums.get(), p.norm_out = norm_out.get();
  p.out_scale = out_scale.get(), p.squares = squares.get(), p.next_squares = next.get();
  p.residual_norm = residual_norm.get(), p.largest_row_norm = 3, p.largest_next_norm = 5;
  ASSERT_CUDA(problem.Run());
  EXPECT_LE(RelativeError(ToDouble(residual.Read()), problem.sums), 5e-3);
  EXPECT_EQ(next.Read(), std::vector<uint32_t>(input.size(), 0));
  const auto norms = norm_out.Read(), scales = out_scale.Read();
  const auto parts = problem.norm_parts->Read();
  for (int t = 0; t < 100; ++t) {
    double sum = 0;
    for (int i = 0; i < 72; ++i) sum += parts[t * 72 + i];
    EXPECT_NEAR(norms[t], std::sqrt(sum), 1e-5 * norms[t]);
    EXPECT_NEAR(scales[t], 5 * (2 + 1.07 * 3 * std::sqrt(input[t * kSquareStride])) / 448,
                1e-5 * scales[t]);
  }
}

// A token's bits depend on the bucket alone, not on the tokens beside it.
TEST_P(DecodeGemmTest, TokensDoNotDependOnEachOther) {
  for (const int tokens : {64, 128, 256, 384, 512, 896}) {
    const Case c = {tokens, 640, 1280};
    Problem problem(c, fp8());
    DeviceArray<float> first(c.tokens * c.rows), second(c.tokens * c.rows);
    problem.params.out_type = DType::kF32;
    problem.params.out = first.get();
    ASSERT_CUDA(problem.Run());
    const int64_t row = c.cols * (fp8() ? 1 : 2);
    ASSERT_CUDA(cudaMemset(problem.x.bytes.get() + row, 0, (c.tokens - 2) * row));
    problem.params.out = second.get();
    ASSERT_CUDA(problem.Run());
    const auto a = first.Read(), b = second.Read();
    for (int64_t r = 0; r < c.rows; ++r) {
      EXPECT_EQ(a[r], b[r]);
      EXPECT_EQ(a[(c.tokens - 1) * c.rows + r], b[(c.tokens - 1) * c.rows + r]);
    }
  }
}

// Inputs in line with gate and up are the worst there can be.
TEST_F(DecodeGemmFp8Test, BalancedSwiGluStaysInRange) {
  const int64_t m = 48, d = 256;
  std::vector<float> weights = Normal(2 * m * d, 3);
  const auto norm = Normal(d, 4);
  for (int64_t r = 0; r < 2 * m; ++r) {
    for (int64_t c = 0; c < d; ++c) {
      weights[r * d + c] *= std::exp2(static_cast<float>(r % 7 * 3 - 9));
      if (r >= m && r % 3 == 0) weights[r * d + c] = 0.5f * weights[(r - m) * d + c];
      if (r == m + 1) weights[r * d + c] = 0;
    }
  }
  DeviceArray<float> source(weights), scale(2 * m), dnorm(norm), factor(m),
      row_norm(std::vector<float>(1, 0.0f));
  DeviceArray<__nv_fp8_e4m3> bytes(2 * m * d);
  ASSERT_CUDA(
      QuantizeRows({source.get(), DType::kF32, bytes.get(), scale.get(), 2 * m, d}, nullptr));
  const auto before = scale.Read();
  const MatrixView w = {bytes.get(), scale.get(), DType::kF8E4M3, 2 * m, d};
  ASSERT_CUDA(LargestRowNorm(w, nullptr, row_norm.get(), nullptr));
  ASSERT_CUDA(BalanceSwiGlu({w, dnorm.get(), factor.get()}, nullptr));
  const auto after = scale.Read(), f = factor.Read();
  auto values = ToDouble(bytes.Read());
  std::vector<double> plain = values;
  for (int64_t i = 0; i < 2 * m * d; ++i) plain[i] *= before[i / d], values[i] *= after[i / d];
  EXPECT_NEAR(row_norm.Read()[0], LargestNorm(plain, d), 1e-5 * row_norm.Read()[0]);
  double largest = 0;
  for (int64_t j = 0; j < m; ++j) {
    EXPECT_EQ(after[j], before[j]);
    EXPECT_EQ(after[m + j] * f[j], before[m + j]);
    EXPECT_EQ(std::exp2(std::round(std::log2(f[j]))), f[j]);
    std::vector<double> a, b, x;
    for (int64_t c = 0; c < d; ++c) {
      a.push_back(values[j * d + c] * norm[c]);
      b.push_back(values[(m + j) * d + c] * norm[c]);
    }
    const double na = std::sqrt(Dot(a.data(), a.data(), d)),
                 nb = std::sqrt(Dot(b.data(), b.data(), d));
    for (int64_t c = 0; c < d; ++c) x.push_back(a[c] / na + (nb > 0 ? b[c] / nb : 0));
    const double nx = std::sqrt(Dot(x.data(), x.data(), d)) / std::sqrt(static_cast<double>(d));
    for (double& v : x) v *= 1.0625 / nx;  // what e4m3's rounding can add
    const double gate = Dot(a.data(), x.data(), d), up = Dot(b.data(), x.data(), d);
    const double act = gate * Sigmoid(gate) * up;
    EXPECT_LE(std::abs(act), 448) << j;
    largest = std::max(largest, std::abs(act));
  }
  EXPECT_GT(largest, 200);  // and not by far
}

INSTANTIATE_TEST_SUITE_P(Types, DecodeGemmTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Fp8" : "Bfloat16"; });

}  // namespace
}  // namespace hgrn2::cuda
