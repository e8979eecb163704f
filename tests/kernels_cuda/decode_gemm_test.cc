#include "kernels/cuda/gemm/decode_gemm.h"

#include <map>
#include <memory>
#include <ostream>
#include <tuple>

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
             << " x " << c.shape.groups * 64 << ", split " << c.shape.split << ", stages "
             << c.shape.stages;
}

DType TypeOf(bool fp8) { return fp8 ? DType::kF8E4M3 : DType::kBF16; }
DecodeGemmShape Tile(int rows, int tokens, int split, int stages) {
  DecodeGemmShape s;
  s.row_tile = rows, s.groups = tokens / 64, s.split = split, s.stages = stages;
  return s;
}

// Awkward sizes with the chosen tiles, then every kind of cut.
std::vector<Case> Cases(GemmEpilogue epilogue, bool fp8) {
  std::vector<Case> cases = {{8, 128, 64},     {1, 256, 1024},   {48, 384, 2048},  {64, 2048, 704},
                             {128, 256, 960},  {96, 128, 4096},  {100, 1024, 192}, {32, 512, 1088},
                             {128, 640, 1280}, {33, 320, 448},   {100, 6144, 256}, {128, 512, 2048},
                             {17, 224, 208},   {80, 1600, 528},  {64, 1056, 2560}, {256, 640, 1280},
                             {192, 2048, 704}, {129, 352, 4096}, {250, 6144, 192}, {257, 640, 1280},
                             {384, 2048, 704}, {300, 352, 4096}};
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
  std::erase_if(cases, [&](const Case& c) { return c.tokens > MaxDecodeGemmTokens(TypeOf(fp8)); });
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

// x and W as the device has them, and what is to come out.
class DecodeGemmTest : public DeviceTest, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    if (!hopper_) GTEST_SKIP() << "wgmma needs compute capability 9.0";
    ASSERT_CUDA(InitDecodeGemm());
  }
  bool fp8() const { return GetParam(); }

  struct Operand {
    Operand(int64_t rows, int64_t cols, uint32_t seed, bool fp8)
        : bytes(rows * cols * (fp8 ? 1 : 2)), scale(rows) {
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
    // Divides the sums by norms that `n` partial sums make up.
    void DivideByNorms(int n) {
      const auto squares = Normal(c.tokens * n, 5);
      std::vector<float> positive;
      for (const float v : squares) positive.push_back(v * v * 40);
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
    cudaError_t Run() {
      if (c.shape.row_tile == 0) return DecodeGemm(params, nullptr);
      const DecodeGemmShape shape = CompleteDecodeGemm(c.shape, c.rows, c.cols, c.tokens,
                                                       params.weight.type, params.epilogue);
      return DecodeGemm(params, shape, nullptr);
    }
    Case c;
    Operand x, w;
    std::vector<double> sums;
    std::unique_ptr<DeviceArray<float>> norm_parts;
    DecodeGemmParams params;
  };
  double tolerance() const { return fp8() ? 5e-3 : 1e-5; }
};

TEST_P(DecodeGemmTest, Stores) {
  for (const Case& c : Cases(GemmEpilogue::kStore, fp8())) {
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

TEST_P(DecodeGemmTest, SwiGlu) {
  for (const Case& c : Cases(GemmEpilogue::kSwiGlu, fp8())) {
    Problem problem(c, fp8());
    problem.DivideByNorms(8);
    const int64_t m = c.rows / 2;
    DeviceArray<__nv_bfloat16> out(c.tokens * m);
    problem.params.epilogue = GemmEpilogue::kSwiGlu;
    problem.params.out = out.get();
    ASSERT_CUDA(problem.Run()) << c;
    std::vector<double> expected;
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int64_t r = 0; r < m; ++r) {
        const double gate = problem.sums[t * c.rows + r], up = problem.sums[t * c.rows + m + r];
        expected.push_back(gate * Sigmoid(gate) * up);
      }
    }
    EXPECT_LE(RelativeError(ToDouble(out.Read()), expected), fp8() ? 1e-2 : 4e-3) << c;
  }
}

TEST_P(DecodeGemmTest, AddsToTheResidual) {
  for (const Case& c : Cases(GemmEpilogue::kResidual, fp8())) {
    Problem problem(c, fp8());
    const auto before = Normal(c.tokens * c.rows, 6), norm = Normal(c.rows, 7);
    const int64_t parts = CeilDiv(c.rows, kSquareSumRows);
    DeviceArray<float> residual(before), weight(norm), squares(c.tokens * parts);
    DeviceArray<__nv_bfloat16> out(c.tokens * c.rows);
    problem.params.epilogue = GemmEpilogue::kResidual;
    problem.params.residual = residual.get();
    ASSERT_CUDA(problem.Run()) << c;  // without a norm behind it
    problem.params.next_norm = weight.get();
    problem.params.out = out.get();
    problem.params.square_sums_out = squares.get();
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
    EXPECT_LE(RelativeError(ToDouble(out.Read()), scaled), fp8() ? 6e-3 : 3e-3) << c;
    EXPECT_LE(RelativeError(ToDouble(squares.Read()), sums), 2 * tolerance()) << c;
  }
}

// A token's bits depend on the bucket alone, not on the tokens beside it.
TEST_P(DecodeGemmTest, TokensDoNotDependOnEachOther) {
  for (const int tokens : {64, 128, 256, 384}) {
    if (tokens > MaxDecodeGemmTokens(TypeOf(fp8()))) continue;
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

INSTANTIATE_TEST_SUITE_P(Types, DecodeGemmTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Fp8" : "Bfloat16"; });

}  // namespace
}  // namespace hgrn2::cuda
