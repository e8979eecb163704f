#include "kernels/cuda/norm/norm.h"

#include "tests/kernels_cuda/device_test.h"

namespace hgrn2::cuda {
namespace {

TEST(ChooseRmsNormShapeTest, CoversTheRow) {
  for (int d = 8; d <= 16384; d += 8) {
    const RmsNormShape s = ChooseRmsNormShape(d);
    EXPECT_GE(s.threads * s.chunks * 4, d);
    EXPECT_LE(s.threads, 256);
    EXPECT_EQ(s.threads % 32, 0);
  }
  EXPECT_EQ(ChooseRmsNormShape(12).chunks, 0);
  EXPECT_EQ(ChooseRmsNormShape(16392).chunks, 0);
}

class NormTest : public DeviceTest {
 protected:
  static std::vector<double> Reference(const std::vector<double>& x, const std::vector<double>& w,
                                       const std::vector<int32_t>& rows, double eps) {
    const size_t d = w.size();
    std::vector<double> out;
    for (const int32_t r : rows) {
      double sum = 0;
      for (size_t i = 0; i < d; ++i) sum += r < 0 ? 0 : x[r * d + i] * x[r * d + i];
      for (size_t i = 0; i < d; ++i) {
        out.push_back(r < 0 ? 0 : x[r * d + i] / std::sqrt(sum / d + eps) * w[i]);
      }
    }
    return out;
  }
};

TEST_F(NormTest, AddsTheDeltaAndKeepsTheSum) {
  for (const int d : {8, 64, 136, 2048, 2560, 9000}) {
    const int rows = 5;
    auto x = Normal(rows * d, 1);
    const auto delta = ToBf16(Normal(rows * d, 2));
    const auto w = Normal(d, 3);
    DeviceArray<float> dx(x), dw(w), out(rows * d);
    DeviceArray<__nv_bfloat16> dd(delta), narrow(rows * d);
    RmsNormParams p;
    p.x = dx.get(), p.delta = dd.get(), p.weight = dw.get(), p.out = out.get();
    p.out_type = DType::kF32, p.rows = rows, p.d = d, p.eps = 1e-5f;
    ASSERT_CUDA(RmsNorm(p, nullptr));
    for (size_t i = 0; i < x.size(); ++i) x[i] += static_cast<float>(delta[i]);
    EXPECT_EQ(dx.Read(), x);
    const auto expected = Reference(ToDouble(x), ToDouble(w), {0, 1, 2, 3, 4}, 1e-5);
    EXPECT_LE(RelativeError(ToDouble(out.Read()), expected), 1e-6) << d;
    p.delta = nullptr, p.out = narrow.get(), p.out_type = DType::kBF16, p.overlap = true;
    ASSERT_CUDA(RmsNorm(p, nullptr));
    EXPECT_LE(RelativeError(ToDouble(narrow.Read()), expected), 3e-3) << d;
  }
}

TEST_F(NormTest, DividesTheDeltaByItsOwnNorm) {
  for (const int parts : {1, 128, 300}) {
    const int rows = 3, d = 272;
    auto x = Normal(rows * d, 1), squares = Normal(rows * parts, 4);
    for (float& v : squares) v *= v;
    const auto delta = Normal(rows * d, 2), w = Normal(d, 3);
    DeviceArray<float> dx(x), dd(delta), dw(w), ds(squares), out(rows * d);
    RmsNormParams p;
    p.x = dx.get(), p.delta = dd.get(), p.delta_type = DType::kF32, p.weight = dw.get();
    p.delta_square_sums = ds.get(), p.num_delta_square_sums = parts, p.delta_eps = 0.01f;
    p.out = out.get(), p.out_type = DType::kF32, p.rows = rows, p.d = d, p.eps = 1e-5f;
    ASSERT_CUDA(RmsNorm(p, nullptr));
    auto sum = ToDouble(x);
    for (int r = 0; r < rows; ++r) {
      double square = 0;
      for (int i = 0; i < parts; ++i) square += squares[r * parts + i];
      for (int i = r * d; i < (r + 1) * d; ++i) sum[i] += delta[i] / std::sqrt(square / d + 0.01);
    }
    EXPECT_LE(RelativeError(ToDouble(dx.Read()), sum), 1e-6) << parts;
    EXPECT_LE(RelativeError(ToDouble(out.Read()), Reference(sum, ToDouble(w), {0, 1, 2}, 1e-5)),
              1e-6)
        << parts;
  }
}

TEST_F(NormTest, ScalesRowsAndColumnsOfTheDelta) {
  const int rows = 5, d = 2056;
  auto x = Normal(rows * d, 1);
  const auto delta = Normal(rows * d, 2), w = Normal(d, 3), row_scale = Normal(rows, 4),
             col_scale = Normal(d, 5);
  DeviceArray<float> dx(x), dd(delta), dw(w), rs(row_scale), cs(col_scale);
  DeviceArray<__nv_fp8_e4m3> out(rows * d);
  RmsNormParams p;
  p.x = dx.get(), p.delta = dd.get(), p.delta_type = DType::kF32, p.weight = dw.get();
  p.delta_row_scale = rs.get(), p.delta_col_scale = cs.get();
  p.out = out.get(), p.out_type = DType::kF8E4M3, p.out_scale = rs.get();  // in and out
  p.rows = rows, p.d = d, p.eps = 1e-5f;
  ASSERT_CUDA(RmsNorm(p, nullptr));
  auto sum = ToDouble(x);
  for (int i = 0; i < rows * d; ++i) {
    sum[i] += static_cast<double>(delta[i]) * row_scale[i / d] * col_scale[i % d];
  }
  EXPECT_LE(RelativeError(ToDouble(dx.Read()), sum), 1e-6);
  auto scaled = ToDouble(out.Read());
  const auto scale = rs.Read();
  for (int i = 0; i < rows * d; ++i) scaled[i] *= scale[i / d];
  EXPECT_LE(RelativeError(scaled, Reference(sum, ToDouble(w), {0, 1, 2, 3, 4}, 1e-5)), 0.04);
}

TEST_F(NormTest, PicksRowsAndLeavesXAlone) {
  const int d = 264;
  const auto x = Normal(4 * d, 1), delta = Normal(4 * d, 2), w = Normal(d, 3);
  const std::vector<int32_t> rows = {3, -1, 0, 3};
  DeviceArray<float> dx(x), dd(delta), dw(w), out(4 * d);
  DeviceArray<int32_t> index(rows);
  RmsNormParams p;
  p.x = dx.get(), p.delta = dd.get(), p.delta_type = DType::kF32, p.weight = dw.get();
  p.out = out.get(), p.out_type = DType::kF32, p.row_index = index.get();
  p.rows = 4, p.d = d, p.eps = 1e-6f;
  ASSERT_CUDA(RmsNorm(p, nullptr));
  EXPECT_EQ(dx.Read(), x);
  auto sum = ToDouble(x);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += delta[i];
  EXPECT_LE(RelativeError(ToDouble(out.Read()), Reference(sum, ToDouble(w), rows, 1e-6)), 1e-6);
}

TEST_F(NormTest, QuantisesRows) {
  const int d = 2048, rows = 3;
  const auto x = ToBf16(Normal(rows * d, 1));
  const auto w = Normal(d, 3);
  DeviceArray<__nv_bfloat16> dx(x);
  DeviceArray<float> dw(w), scale(rows), norms(rows);
  DeviceArray<__nv_fp8_e4m3> out(rows * d);
  RmsNormParams p;
  p.x = dx.get(), p.x_type = DType::kBF16, p.weight = dw.get(), p.out = out.get();
  p.out_type = DType::kF8E4M3, p.out_scale = scale.get(), p.rows = rows, p.d = d;
  p.norm_out = norms.get();
  ASSERT_CUDA(RmsNorm(p, nullptr));
  EXPECT_LE(RelativeError(ToDouble(norms.Read()), RowNorms(ToDouble(x), d)), 1e-5);
  const auto q = out.Read();
  const auto s = scale.Read();
  std::vector<double> values;
  for (int i = 0; i < rows * d; ++i) values.push_back(static_cast<float>(q[i]) * double{s[i / d]});
  EXPECT_LE(RelativeError(values, Reference(ToDouble(x), ToDouble(w), {0, 1, 2}, 1e-6)), 0.04);
}

TEST_F(NormTest, RefusesBadShapes) {
  RmsNormParams p;
  p.rows = 1, p.d = 12;
  EXPECT_EQ(RmsNorm(p, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace hgrn2::cuda
