#include "kernels/cpu/gemm.h"

#include <algorithm>

#include "kernels/cpu/gemm_bf16.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hgrn2::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes: a panel is 32 columns and blocks take two vectors of it.
using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;
#if HWY_TARGET == HWY_SCALAR
constexpr int kLanes = 1;
#else
constexpr int kLanes = HWY_MIN(HWY_MAX_BYTES / 4, 16);
#endif
#if HWY_MAX_BYTES >= 64 || HWY_ARCH_ARM
constexpr int kMaxRows = 12;  // 32 registers: 24 sums
#else
constexpr int kMaxRows = 6;  // 16 registers: 12 sums
#endif

// Weights of columns [column, column + lanes) for the k of `row`: kF32 has one k per row of a
// panel, kBF16 two in the halves of each 32-bit element.
struct F32Weights {
  static constexpr int kPerRow = 1;
  static HWY_INLINE void Load(const uint8_t* panel, int64_t row, int column, VF* w) {
    w[0] = hn::Load(DF(), reinterpret_cast<const float*>(panel) + row * kPanelColumns + column);
  }
};
struct Bf16Weights {
  static constexpr int kPerRow = 2;
  static HWY_INLINE void Load(const uint8_t* panel, int64_t row, int column, VF* w) {
    const hn::RebindToUnsigned<DF> du;
    const auto pair =
        hn::Load(du, reinterpret_cast<const uint32_t*>(panel) + row * kPanelColumns + column);
    w[0] = hn::BitCast(DF(), hn::ShiftLeft<16>(pair));
    w[1] = hn::BitCast(DF(), hn::And(pair, hn::Set(du, 0xFFFF0000u)));
  }
};

// R rows by V vectors whose first column is `column` of the group of panels that begins at `panel`.
template <class W, int R, int V>
HWY_NOINLINE void Block(const GemmParams& p, const uint8_t* panel, int row, int column) {
  const DF df;
  const int64_t panel_bytes = p.weights->panel_bytes();
  const float* a = static_cast<const float*>(p.a) + row * p.lda;
  VF acc[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) acc[r][v] = hn::Zero(df);
  }
  const int64_t panel_rows = p.weights->k_padded() / W::kPerRow;
  for (int64_t k = 0; k < panel_rows; ++k) {
    VF w[V][2];
    for (int v = 0; v < V; ++v) {
      const int c = column + v * kLanes;
      W::Load(panel + c / kPanelColumns * panel_bytes, k, c % kPanelColumns, w[v]);
    }
    for (int j = 0; j < W::kPerRow; ++j) {
      for (int r = 0; r < R; ++r) {
        const VF x = hn::Set(df, a[r * p.lda + k * W::kPerRow + j]);
        for (int v = 0; v < V; ++v) acc[r][v] = hn::MulAdd(x, w[v][j], acc[r][v]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      float* out = p.c + (row + r) * p.ldc + column + v * kLanes;
      const VF sum = p.accumulate ? hn::Add(hn::LoadU(df, out), acc[r][v]) : acc[r][v];
      hn::StoreU(sum, df, out);
    }
  }
}

template <class W, int R>
void Rows(const GemmParams& p, const uint8_t* panels, int row, int column_begin, int column_end) {
  constexpr int kVectors = kPanelColumns / kLanes >= 2 ? (R == 1 ? 8 : R <= 3 ? 4 : 2) : 1;
  int column = column_begin;
  for (; column + kVectors * kLanes <= column_end; column += kVectors * kLanes) {
    Block<W, R, kVectors>(p, panels, row, column);
  }
  for (; column < column_end; column += 2 * kLanes) Block<W, R, 2>(p, panels, row, column);
}

template <class W>
void RowsOf(const GemmParams& p, const uint8_t* panels, int row, int rows, int begin, int end) {
  switch (rows) {
    case 1:
      return Rows<W, 1>(p, panels, row, begin, end);
    case 2:
      return Rows<W, 2>(p, panels, row, begin, end);
    case 3:
      return Rows<W, 3>(p, panels, row, begin, end);
    case 4:
      return Rows<W, 4>(p, panels, row, begin, end);
    case 5:
      return Rows<W, 5>(p, panels, row, begin, end);
    case 6:
      return Rows<W, 6>(p, panels, row, begin, end);
#if HWY_MAX_BYTES >= 64 || HWY_ARCH_ARM
    case 7:
      return Rows<W, 7>(p, panels, row, begin, end);
    case 8:
      return Rows<W, 8>(p, panels, row, begin, end);
    case 9:
      return Rows<W, 9>(p, panels, row, begin, end);
    case 10:
      return Rows<W, 10>(p, panels, row, begin, end);
    case 11:
      return Rows<W, 11>(p, panels, row, begin, end);
    case 12:
      return Rows<W, 12>(p, panels, row, begin, end);
#endif
    default:
      return;
  }
}

template <class W>
void GemmOf(const GemmParams& p) {
  const int blocks = (p.rows + kMaxRows - 1) / kMaxRows;
  const int most_rows = blocks == 0 ? 0 : (p.rows + blocks - 1) / blocks;
  const auto* panels = static_cast<const uint8_t*>(p.weights->panel(p.panel_begin));
  // One panel at a time goes over all rows while it is in the cache; few rows take them all at
  // once.
  const int columns = p.num_panels * kPanelColumns;
  const int step = most_rows <= kFewRows ? columns : kPanelColumns;
  for (int column = 0; column < columns; column += step) {
    for (int row = 0; row < p.rows; row += most_rows) {
      RowsOf<W>(p, panels, row, HWY_MIN(most_rows, p.rows - row), column, column + step);
    }
  }
}

void GemmFloatActivations(const GemmParams& p) {
  if (p.weights->dtype() == DType::kF32) return GemmOf<F32Weights>(p);
  GemmOf<Bf16Weights>(p);
}

}  // namespace HWY_NAMESPACE
}  // namespace hgrn2::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hgrn2::cpu {

HWY_EXPORT(GemmFloatActivations);

void Gemm(const GemmParams& params) {
#if HGRN2_AVX512_BF16
  if (params.weights->activation_dtype() == DType::kBF16) return GemmAvx512Bf16(params);
#endif
  HWY_DYNAMIC_DISPATCH(GemmFloatActivations)(params);
}

GemmGrid ChooseGemmGrid(int rows, int num_panels, int num_threads) {
  GemmGrid grid;
  grid.row_step = std::max(rows, 1);
  if (rows <= kFewRows) {
    grid.panel_step = kFewRowsPanels;
    while (grid.panel_step > 1 && num_panels < grid.panel_step * num_threads) grid.panel_step /= 2;
  } else {
    // A few items per thread even out what the threads lose to others.
    const int wanted = 4 * num_threads;
    grid.panel_step = std::clamp(num_panels / wanted, 1, 8);
    const int row_items = std::max(1, wanted / std::max(1, num_panels / grid.panel_step));
    grid.row_step = static_cast<int>(RoundUp((rows + row_items - 1) / row_items, kTileRows));
  }
  grid.panel_items = (num_panels + grid.panel_step - 1) / grid.panel_step;
  grid.row_items = (std::max(rows, 1) + grid.row_step - 1) / grid.row_step;
  return grid;
}

GemmParams GemmItem(const GemmParams& params, const GemmGrid& grid, int item) {
  const int panel = item / grid.row_items * grid.panel_step;
  const int row = item % grid.row_items * grid.row_step;
  GemmParams p = params;
  p.panel_begin = params.panel_begin + panel;
  p.num_panels = std::min(grid.panel_step, params.num_panels - panel);
  p.rows = std::min(grid.row_step, params.rows - row);
  p.a = static_cast<const uint8_t*>(params.a) +
        static_cast<int64_t>(SizeOf(params.weights->activation_dtype())) * row * params.lda;
  if (params.c != nullptr) {  // null: the caller gives each item its own output
    p.c = params.c + row * params.ldc + static_cast<int64_t>(panel) * kPanelColumns;
  }
  return p;
}

}  // namespace hgrn2::cpu
#endif  // HWY_ONCE
