// Products on every instruction set: right, and the same bits however they are cut.
#include "kernels/cpu/gemm.h"

#include <cstring>
#include <random>
#include <tuple>

#include "kernels/cpu/ops.h"
#include "tests/kernels_cpu/targets.h"

namespace hgrn2::cpu {
namespace {

struct Problem {
  int rows, columns, k;
  DType dtype;
  PackedMatrix w;
  std::vector<float> w_float;  // what W is after its rounding
  int64_t lda;
  std::vector<float> a_float;
  AlignedBuffer<uint8_t> a;

  Problem(int rows_, int columns_, int k_, DType dtype_)
      : rows(rows_), columns(columns_), k(k_), dtype(dtype_), w(columns, k, dtype) {
    std::mt19937 rng(static_cast<uint32_t>(rows * 1000003 + columns * 1009 + k));
    std::normal_distribution<float> normal;
    std::vector<float> row(static_cast<size_t>(k));
    for (int c = 0; c < columns; ++c) {
      for (float& x : row) {
        x = normal(rng);
        if (dtype == DType::kBF16) x = Round(x);
      }
      w.SetColumn(c, row.data(), DType::kF32);
      w_float.insert(w_float.end(), row.begin(), row.end());
    }
    lda = w.k_padded();
    a = AlignedBuffer<uint8_t>(static_cast<size_t>(rows * lda) * 4);
    const DType a_dtype = w.activation_dtype();
    for (int r = 0; r < rows; ++r) {
      for (float& x : row) {
        x = normal(rng);
        if (a_dtype == DType::kBF16) x = Round(x);
      }
      ConvertFromFloat(row.data(), a_dtype, k, a.data() + r * lda * SizeOf(a_dtype));
      a_float.insert(a_float.end(), row.begin(), row.end());
    }
  }

  static float Round(float x) {
    const uint16_t bits = FloatToBf16(x);
    return ToFloat(&bits, DType::kBF16);
  }

  GemmParams Params(float* c) const {
    GemmParams p;
    p.weights = &w;
    p.a = a.data();
    p.lda = lda;
    p.rows = rows;
    p.num_panels = w.num_panels();
    p.c = c;
    p.ldc = ldc();
    return p;
  }
  int64_t ldc() const { return int64_t{w.num_panels()} * kPanelColumns; }

  double At(int row, int column) const {
    double sum = 0;
    for (int j = 0; j < k; ++j) sum += double{a_float[row * k + j]} * w_float[column * k + j];
    return sum;
  }
};

class GemmTest : public EachTarget {};

TEST_P(GemmTest, AgreesWithDouble) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [rows, columns, k] :
         std::initializer_list<std::tuple<int, int, int>>{{1, 32, 2},
                                                          {1, 300, 64},
                                                          {2, 129, 33},
                                                          {3, 97, 100},
                                                          {5, 40, 1},
                                                          {12, 64, 256},
                                                          {13, 65, 96},
                                                          {29, 200, 77},
                                                          {64, 33, 320}}) {
      const Problem problem(rows, columns, k, dtype);
      AlignedBuffer<float> c(static_cast<size_t>(rows * problem.ldc()));
      Gemm(problem.Params(c.data()));
      std::vector<double> expected, sums;
      std::vector<float> actual;
      for (int r = 0; r < rows; ++r) {
        for (int col = 0; col < problem.ldc(); ++col) {
          const float got = c[r * problem.ldc() + col];
          if (col >= columns) {
            ASSERT_EQ(got, 0) << "padding";
            continue;
          }
          actual.push_back(got);
          expected.push_back(problem.At(r, col));
        }
      }
      EXPECT_LE(RelativeError(actual.data(), expected), 2e-6)
          << rows << "x" << columns << "x" << k << " " << Name(dtype);
    }
  }
}

TEST_P(GemmTest, ARowIsTheSameBitsInAnyCut) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Problem problem(37, 250, 200, dtype);
    AlignedBuffer<float> whole(static_cast<size_t>(problem.rows * problem.ldc()));
    Gemm(problem.Params(whole.data()));
    // Each row alone.
    AlignedBuffer<float> row(static_cast<size_t>(problem.ldc()));
    for (int r = 0; r < problem.rows; ++r) {
      GemmParams p = problem.Params(row.data());
      p.rows = 1;
      p.a = problem.a.data() + r * problem.lda * SizeOf(problem.w.activation_dtype());
      Gemm(p);
      ASSERT_EQ(0, std::memcmp(row.data(), whole.data() + r * problem.ldc(), row.size() * 4)) << r;
    }
    // By grids for many numbers of threads.
    for (int threads = 1; threads < 40; ++threads) {
      AlignedBuffer<float> cut(whole.size());
      const GemmGrid grid = ChooseGemmGrid(problem.rows, problem.w.num_panels(), threads);
      for (int item = 0; item < grid.num_items(); ++item) {
        Gemm(GemmItem(problem.Params(cut.data()), grid, item));
      }
      ASSERT_EQ(0, std::memcmp(cut.data(), whole.data(), whole.size() * 4)) << threads;
    }
  }
}

TEST_P(GemmTest, Accumulates) {
  const Problem problem(4, 64, 64, DType::kF32);
  AlignedBuffer<float> once(static_cast<size_t>(4 * problem.ldc()));
  GemmParams p = problem.Params(once.data());
  Gemm(p);
  AlignedBuffer<float> twice(once.size());
  p.c = twice.data();
  p.accumulate = true;
  Gemm(p);
  Gemm(p);
  for (size_t i = 0; i < once.size(); ++i) ASSERT_EQ(twice[i], once[i] + once[i]);
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmTest, Targets(), TargetName);

TEST(GemmGridTest, CoversEverythingOnce) {
  for (int rows = 1; rows < 300; rows += 7) {
    for (const int panels : {1, 2, 3, 8, 24, 49, 1000}) {
      for (const int threads : {1, 2, 3, 8, 64}) {
        const GemmGrid grid = ChooseGemmGrid(rows, panels, threads);
        PackedMatrix w(32, 2, DType::kF32);
        GemmParams p;
        p.weights = &w;
        p.rows = rows;
        p.num_panels = panels;
        int64_t covered = 0;
        for (int i = 0; i < grid.num_items(); ++i) {
          const GemmParams item = GemmItem(p, grid, i);
          ASSERT_GT(item.rows, 0);
          ASSERT_GT(item.num_panels, 0);
          covered += int64_t{item.rows} * item.num_panels;
        }
        ASSERT_EQ(covered, int64_t{rows} * panels);
      }
    }
  }
}

}  // namespace
}  // namespace hgrn2::cpu
