// Compiled with AVX512_BF16 flags: everything here is in an anonymous namespace or calls nothing
// inline from the standard library, so that no such code leaks into other translation units.
#include "kernels/cpu/gemm_bf16.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>

namespace hgrn2::cpu {
namespace {

constexpr int kLanes = 16;
constexpr int kVectorsPerPanel = kPanelColumns / kLanes;
// Distance ahead in a panel that is fetched while few rows stream it: the hardware prefetcher stops
// at 4 KiB page ends. Measured best of 256 B..4 KiB.
constexpr int64_t kPrefetchBytes = 1024;

// One block: R rows by V vectors of 16 columns, starting at a panel's first column (or, V = 1, its
// middle). Two consecutive k at a time.
template <int R, int V>
void Block(const uint8_t* panel, int64_t panel_bytes, int64_t pairs, const uint16_t* a, int64_t lda,
           float* c, int64_t ldc, bool accumulate) {
  __m512 acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[r][v] = _mm512_setzero_ps();
  }
  for (int64_t p = 0; p < pairs; ++p) {
    __m512bh w[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      const uint8_t* at = panel + (v / kVectorsPerPanel) * panel_bytes + p * (kPanelColumns * 4) +
                          (v % kVectorsPerPanel) * 64;
      w[v] = (__m512bh)_mm512_load_si512(at);
      if constexpr (R <= kFewRows) {
        _mm_prefetch(reinterpret_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T0);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      int pair;
      __builtin_memcpy(&pair, a + r * lda + 2 * p, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], x, w[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      float* out = c + r * ldc + v * kLanes;
      const __m512 sum = accumulate ? _mm512_add_ps(_mm512_loadu_ps(out), acc[r][v]) : acc[r][v];
      _mm512_storeu_ps(out, sum);
    }
  }
}

using BlockFn = void (*)(const uint8_t*, int64_t, int64_t, const uint16_t*, int64_t, float*,
                         int64_t, bool);

// By number of rows, for one panel, two and four.
constexpr BlockFn kOnePanel[kTileRows + 1] = {
    nullptr,     Block<1, 2>, Block<2, 2>, Block<3, 2>,  Block<4, 2>,  Block<5, 2>, Block<6, 2>,
    Block<7, 2>, Block<8, 2>, Block<9, 2>, Block<10, 2>, Block<11, 2>, Block<12, 2>};
constexpr int kTwoPanelRows = 6;
constexpr BlockFn kTwoPanels[kTwoPanelRows + 1] = {
    nullptr, Block<1, 4>, Block<2, 4>, Block<3, 4>, Block<4, 4>, Block<5, 4>, Block<6, 4>};
constexpr BlockFn kFourPanels[kFewRows + 1] = {nullptr, Block<1, 8>, Block<2, 8>, Block<3, 8>};

}  // namespace

void GemmAvx512Bf16(const GemmParams& params) {
  const PackedMatrix& w = *params.weights;
  const int64_t pairs = w.k_padded() / 2;
  const int blocks = (params.rows + kTileRows - 1) / kTileRows;
  const int most_rows = blocks == 0 ? 0 : (params.rows + blocks - 1) / blocks;
  const int step = most_rows <= kFewRows ? 4 : most_rows <= kTwoPanelRows ? 2 : 1;
  for (int panel = 0; panel < params.num_panels;) {
    const int left = params.num_panels - panel;
    const int panels = left >= step ? step : left >= 2 ? 2 : 1;
    const auto* at = static_cast<const uint8_t*>(w.panel(params.panel_begin + panel));
    for (int row = 0; row < params.rows;) {
      const int rows = params.rows - row < most_rows ? params.rows - row : most_rows;
      const BlockFn block = panels == 4                            ? kFourPanels[rows]
                            : panels == 2 && rows <= kTwoPanelRows ? kTwoPanels[rows]
                                                                   : kOnePanel[rows];
      for (int p = 0; p < panels; p += block == kOnePanel[rows] ? 1 : panels) {
        block(at + p * w.panel_bytes(), w.panel_bytes(), pairs,
              static_cast<const uint16_t*>(params.a) + row * params.lda, params.lda,
              params.c + row * params.ldc + (panel + p) * kPanelColumns, params.ldc,
              params.accumulate);
      }
      row += rows;
    }
    panel += panels;
  }
}

}  // namespace hgrn2::cpu
#endif  // __AVX512BF16__
