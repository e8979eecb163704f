// C = A W^T with a result that does not depend on how the work is cut.
//
// Every output element is one float32 accumulator over k in ascending order (pairs of k with
// AVX512_BF16), whatever the number of rows, the blocking or the thread: a row's result is bitwise
// the same alone and in a batch. That is why this is not oneDNN or a BLAS, which choose kernels and
// split k by the number of rows. It also lets one packed copy of the weights serve both ends: one
// row streams the panels at memory bandwidth, many rows reuse each panel from registers.
#pragma once

#include <cstdint>

#include "kernels/cpu/packed_matrix.h"

namespace hgrn2::cpu {

// Most rows of one register block.
inline constexpr int kTileRows = 12;
// Up to this many rows the product is bound by the weights' bandwidth and works on several panels
// at once, to have enough independent sums.
inline constexpr int kFewRows = 3;
inline constexpr int kFewRowsPanels = 4;

struct GemmParams {
  const PackedMatrix* weights = nullptr;
  const void* a = nullptr;  // [rows, lda] of weights->activation_dtype(); columns k to k_padded
                            // are zero
  int64_t lda = 0;          // elements
  int rows = 0;
  int panel_begin = 0;
  int num_panels = 1;
  float* c = nullptr;  // [rows, ldc]; column 0 is the first of panel_begin
  int64_t ldc = 0;
  bool accumulate = false;  // C += A W^T instead of C =
};

// Any number of rows and panels; single-threaded.
void Gemm(const GemmParams& params);

// How to cut a product over threads. Items are numbered panel-major: the row blocks of one group of
// panels follow each other, so that the panels stay in the cache.
struct GemmGrid {
  int panel_step = 1;
  int row_step = 1;
  int panel_items = 1;
  int row_items = 1;
  int num_items() const { return panel_items * row_items; }
};
GemmGrid ChooseGemmGrid(int rows, int num_panels, int num_threads);

// Item `item` of a product over `rows` rows; `params` describes the whole product.
GemmParams GemmItem(const GemmParams& params, const GemmGrid& grid, int item);

}  // namespace hgrn2::cpu
