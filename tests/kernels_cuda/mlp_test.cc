#include "kernels/cuda/mlp/mlp.h"

#include <cuda_fp16.h>

#include "tests/kernels_cuda/device_test.h"

namespace hgrn2::cuda {
namespace {

class MlpTest : public DeviceTest {
 protected:
  static std::vector<double> Reference(const std::vector<double>& gate_up, int rows, int m) {
    std::vector<double> out;
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < m; ++i) {
        const double g = gate_up[r * 2 * m + i], u = gate_up[r * 2 * m + m + i];
        out.push_back(g / (1 + std::exp(-g)) * u);
      }
    }
    return out;
  }
};

TEST_F(MlpTest, SwiGlu) {
  for (const int m : {8, 136, 5632}) {
    const int rows = 7;
    const auto x = Normal(rows * 2 * m, 1, 3);
    DeviceArray<float> dx(x), out(rows * m);
    ASSERT_CUDA(SwiGlu({dx.get(), DType::kF32, out.get(), DType::kF32, nullptr, rows, m}, nullptr));
    EXPECT_LE(RelativeError(ToDouble(out.Read()), Reference(ToDouble(x), rows, m)), 1e-6);
    const auto narrow = ToBf16(x);
    DeviceArray<__nv_bfloat16> dn(narrow), out_n(rows * m);
    ASSERT_CUDA(
        SwiGlu({dn.get(), DType::kBF16, out_n.get(), DType::kBF16, nullptr, rows, m}, nullptr));
    EXPECT_LE(RelativeError(ToDouble(out_n.Read()), Reference(ToDouble(narrow), rows, m)), 3e-3);
    DeviceArray<__nv_fp8_e4m3> q(rows * m);
    DeviceArray<float> scale(rows);
    ASSERT_CUDA(
        SwiGlu({dn.get(), DType::kBF16, q.get(), DType::kF8E4M3, scale.get(), rows, m}, nullptr));
    const auto values = q.Read();
    const auto s = scale.Read();
    std::vector<double> exact;
    for (int i = 0; i < rows * m; ++i) {
      exact.push_back(static_cast<float>(values[i]) * double{s[i / m]});
    }
    EXPECT_LE(RelativeError(exact, Reference(ToDouble(narrow), rows, m)), 0.05);
  }
}

TEST_F(MlpTest, SwiGluScalesItsInputs) {
  for (const int m : {8, 1448, 5632}) {
    const int rows = 3;
    const auto x = ToBf16(Normal(rows * 2 * m, 1));
    const auto row_scale = Normal(rows, 2), col_scale = Normal(2 * m, 3);
    DeviceArray<__nv_bfloat16> dx(x);
    DeviceArray<float> rs(row_scale), cs(col_scale), scale(rows);
    DeviceArray<__nv_fp8_e4m3> q(rows * m);
    SwiGluParams p = {dx.get(), DType::kBF16, q.get(), DType::kF8E4M3, scale.get(), rows, m};
    p.row_scale = rs.get(), p.col_scale = cs.get();
    ASSERT_CUDA(SwiGlu(p, nullptr));
    auto scaled = ToDouble(x), exact = ToDouble(q.Read());
    for (int i = 0; i < rows * 2 * m; ++i)
      scaled[i] *= row_scale[i / (2 * m)] * col_scale[i % (2 * m)];
    const auto s = scale.Read();
    for (int i = 0; i < rows * m; ++i) exact[i] *= s[i / m];
    EXPECT_LE(RelativeError(exact, Reference(scaled, rows, m)), 0.05) << m;
    p.row_scale = nullptr;
    EXPECT_EQ(SwiGlu(p, nullptr), cudaErrorInvalidValue);
  }
}

TEST_F(MlpTest, EmbedTakesTokensFromTheBatchOrTheDevice) {
  const int d = 72, vocab = 11;
  const auto table = Normal(vocab * d, 1);
  const std::vector<int32_t> tokens = {4, -1, 0, 10}, slots = {2, 1, -1, 0}, last = {7, 9, 3};
  DeviceArray<float> dt(table), x(4 * d);
  DeviceArray<int32_t> dtok(tokens), dslot(slots), dlast(last), resolved(4);
  DeviceArray<uint32_t> step(std::vector<uint32_t>{41});
  EmbedParams p;
  p.table = dt.get(), p.table_type = DType::kF32, p.tokens = dtok.get(), p.slots = dslot.get();
  p.last_token = dlast.get(), p.x = x.get(), p.resolved = resolved.get(), p.step = step.get();
  p.rows = 4, p.d = d;
  ASSERT_CUDA(Embed(p, nullptr));
  EXPECT_EQ(resolved.Read(), (std::vector<int32_t>{4, 9, 0, 10}));
  EXPECT_EQ(step.Read()[0], 42u);
  const auto out = x.Read();
  for (int i = 0; i < d; ++i) {
    EXPECT_EQ(out[i], table[4 * d + i]);
    EXPECT_EQ(out[d + i], table[9 * d + i]);
    EXPECT_EQ(out[2 * d + i], 0);
    EXPECT_EQ(out[3 * d + i], table[10 * d + i]);
  }
}

TEST_F(MlpTest, QuantisesRowsWithColumnFactors) {
  const int rows = 3, cols = 136;
  const auto x = Normal(rows * cols, 1), factor = Normal(cols, 2);
  DeviceArray<__nv_bfloat16> source(ToBf16(x));
  DeviceArray<float> dfactor(factor), scale(rows);
  DeviceArray<__nv_fp8_e4m3> out(rows * cols);
  QuantizeRowsParams p = {source.get(), DType::kBF16, out.get(), scale.get(), rows, cols};
  p.col_factor = dfactor.get();
  ASSERT_CUDA(QuantizeRows(p, nullptr));
  auto values = ToDouble(out.Read());
  const auto s = scale.Read();
  std::vector<double> expected;
  for (int i = 0; i < rows * cols; ++i) {
    values[i] *= s[i / cols];
    expected.push_back(double{x[i]} * factor[i % cols]);
  }
  EXPECT_LE(RelativeError(values, expected), 0.04);
}

TEST_F(MlpTest, Convert) {
  const auto x = Normal(1001, 1);
  DeviceArray<float> dx(x), back(x.size());
  DeviceArray<__half> half(x.size());
  const int64_t n = static_cast<int64_t>(x.size());
  ASSERT_CUDA(Convert({dx.get(), DType::kF32, half.get(), DType::kF16, n}, nullptr));
  ASSERT_CUDA(Convert({half.get(), DType::kF16, back.get(), DType::kF32, n}, nullptr));
  const auto out = back.Read();
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(out[i], __half2float(__float2half(x[i])));
}

}  // namespace
}  // namespace hgrn2::cuda
