// Products of a decode step's tokens with a weight matrix, at the speed of the weights' bytes, with
// what stands between two products of a layer in prologue and epilogue:
//   sum[T, rows] = x[T, cols] W[rows, cols]^T, bfloat16 or FP8 (e4m3).
// In FP8 the epilogues leave the next product's input in e4m3, at a scale that is known before the
// sums are: no element can be larger than the norms of weights and input allow (fp8_range.h).
//
// sm_90a. Tokens are the 64-row operand of wgmma and the weights' rows its N. The kernels are meant
// for programmatic dependent launch: a block streams weights, which no kernel writes, as soon as a
// multiprocessor has room for it, even if the kernel ahead still runs. One has a block per tile
// (docs/kernels/decode-gemm.md); the other, for many tokens, blocks that stay (wide-gemm.md).
#pragma once

#include "kernels/cuda/common.h"
#include "kernels/cuda/model_view.h"

namespace hgrn2::cuda {

// Beyond, cuBLASLt's products and the kernels between them are faster, but for SwiGLU's (docs/
// kernels/wide-gemm.md).
inline constexpr int32_t kMaxDecodeGemmTokens = 1024;
// The most rows that a block has of x. Rows of the last tile past the tokens are read too, and
// ignored: a copy that leaves them out takes longer (320 tokens in tiles of 192 by a third).
inline constexpr int32_t kDecodeGemmTokenTile = 192;
// Rows of x that share a partial sum of squares.
inline constexpr int32_t kSquareSumRows = 32;

// Of the wide kernel: tokens of a tile, shared memory of its stages.
inline constexpr int kWideTokenTile = 128;
inline constexpr int kWideShared = 208 * 1024;

enum class GemmEpilogue {
  kStore,     // out[t][r] = v
  kSwiGlu,    // rows are [gate | up]: out[t][r] = swish(v[t][r]) v[t][rows / 2 + r], r < rows / 2.
              // FP8: limited to +-448, and squares[t] gets the sum of out[t][r]^2
  kResidual,  // residual[t][r] += v; with next_norm: out[t][r] = residual[t][r] next_norm[r] (FP8:
              // out out_scale is) and square_sums_out[t][r / 32] = sum of 32 residual[t][r]^2
};

// Words from one token's `squares` to the next: a line each, or all blocks' additions would wait
// for a few.
inline constexpr int32_t kSquareStride = 32;

// How a product is cut into blocks.
struct DecodeGemmShape {
  int row_tile = 0;    // weight rows of a block: 32, 64, 96, 128 or 192; 0: not supported
  int groups = 1;      // warpgroups of 64 tokens of a block: 1, 2 or 3
  int split = 1;       // 1, 2 or 4 blocks that share a tile, each with a part of the columns
  bool share = false;  // two blocks a multiprocessor
  int stages = 0;      // before CompleteDecodeGemm: the most there may be; 0: its choice
  int row_tiles = 0;
  int token_tiles = 0;  // wide: of whole pairs
  size_t shared_bytes = 0;
  int received = 0;  // bytes from the first stage to what the other blocks of a split send

  // Many tokens: blocks in clusters of two, which share rows, take pairs of tiles of 128 tokens one
  // after the other (docs/kernels/wide-gemm.md). Both warpgroups multiply one tile together, or one
  // each, and one stores while the other multiplies.
  bool wide = false, together = false;

  // Tokens of a tile of the third kernel (docs/kernels/column-gemm.md), whose warpgroups have 64
  // rows each; 0: another kernel.
  int columns = 0;

  int token_tile() const { return columns > 0 ? columns : groups * 64; }
  // Wide: tiles, which no more blocks take than the device has multiprocessors.
  int blocks() const { return row_tiles * token_tiles * split; }
  int cluster() const { return wide ? 2 : split; }
};
// Tiles and splits that there may be, and how many warpgroups so many tokens take.
inline constexpr int kDecodeGemmRowTiles[] = {192, 128, 96, 64, 32};
inline constexpr int kDecodeGemmSplits[] = {1, 2, 4};
constexpr int DecodeGemmGroups(int32_t tokens, DType type) {
  if (tokens <= 64) return 1;
  return type == DType::kBF16 && tokens > 256 && tokens <= 384 ? 3 : 2;
}
// Whether there is an instance for a cut. A block of a split finishes whole sixteens of rows; with
// SwiGLU as many of gate as of up, with the residual whole sums of squares. 192 rows are too many
// registers beside a residual. Three warpgroups (bfloat16) have the cuts that two tiles of their
// tokens need.
constexpr bool IsBuilt(int row_tile, int groups, int split, GemmEpilogue epilogue) {
  const int unit = epilogue == GemmEpilogue::kStore ? 16 : 32;
  if (row_tile % (unit * split) != 0) return false;
  if (row_tile == 192 && (split > 1 || epilogue == GemmEpilogue::kResidual)) return false;
  return groups < 3 || (row_tile % 96 == 0 && split == 1) || (row_tile == 64 && split < 4);
}
// Whether there is an instance of which two blocks fit a multiprocessor.
constexpr bool MayShare(int row_tile, int groups, int split, GemmEpilogue epilogue) {
  return groups < 3 && row_tile == 128 && split == 1 && epilogue != GemmEpilogue::kResidual;
}
// Of the wide kernel.
inline constexpr int kWideGemmRowTiles[] = {192, 128};
inline constexpr int kMostWideStages = 8;
constexpr int WideStageCount(int row_tile) {
  const int fit = kWideShared / ((row_tile + kWideTokenTile) * 128);
  return fit < kMostWideStages ? fit : kMostWideStages;
}
constexpr bool IsBuiltWide(int row_tile, GemmEpilogue epilogue) {
  return row_tile == 128 || (row_tile == 192 && epilogue != GemmEpilogue::kResidual);
}
// Of the kernel with tokens in columns, bfloat16: what is faster than tiles of 64 or 128 tokens
// more. Gate and up have three warpgroups; the residual one, and two blocks that share a tile.
inline constexpr int kColumnGemmTiles[] = {96, 160};
constexpr bool IsBuiltColumns(int columns, GemmEpilogue epilogue) {
  if (epilogue == GemmEpilogue::kSwiGlu) return columns == 96 || columns == 160;
  return epilogue == GemmEpilogue::kResidual && columns == 96;
}
// Floats from one token's sums to the next one's, where they lie by rows.
inline constexpr int kColumnStride = 64 + 4;
// A function of the arguments alone, so that results depend on nothing else. Pure.
DecodeGemmShape ChooseDecodeGemm(int64_t rows, int64_t cols, int32_t tokens, DType type,
                                 GemmEpilogue epilogue);
// Whether this kernel is to run a product, or cuBLASLt: by measurement (docs/kernels/
// decode-gemm.md). A function of the arguments alone. Pure.
bool PreferDecodeGemm(int64_t rows, int64_t cols, int64_t tokens, DType type,
                      GemmEpilogue epilogue);
// Fills in what follows from the tiles and the split; row_tile 0 if that cannot be.
DecodeGemmShape CompleteDecodeGemm(DecodeGemmShape shape, int64_t rows, int64_t cols,
                                   int32_t tokens, DType type, GemmEpilogue epilogue);

struct DecodeGemmParams {
  MatrixView weight;  // kBF16 or kF8E4M3
  // [T, cols] of weight.type, 16-byte aligned; readable to T + kDecodeGemmTokenTile - 1.
  const void* x = nullptr;
  const float* x_scale = nullptr;  // [T], kF8E4M3, or null: ones
  int32_t tokens = 0;              // T
  // RMSNorm's division, applied to the sums: v = sum / sqrt(sum_i square_sums[t][i] / cols + eps).
  const float* square_sums = nullptr;  // [T][num_square_sums], or null: v = sum
  int32_t num_square_sums = 0;
  float eps = 0;
  float* norm_out = nullptr;  // kF8E4M3: [T] sqrt(sum_i square_sums[t][i]), or null

  GemmEpilogue epilogue = GemmEpilogue::kStore;
  void* out = nullptr;               // see GemmEpilogue; kSwiGlu and kResidual: of weight.type
  DType out_type = DType::kBF16;     // kStore: kF32 or kBF16
  float* residual = nullptr;         // [T, rows]
  const float* next_norm = nullptr;  // [rows], or null: no out, no square_sums_out
  float* square_sums_out = nullptr;  // [T][CeilDiv(rows, kSquareSumRows)]
  // FP8: [T][kSquareStride], of which the first counts: sums of squares over SwiGluSquareUnit(), in
  // integers because the order of their addition does not matter. kSwiGlu adds those of its output,
  // each block's rounded up (null: nobody wants them); kResidual reads those of its input (null: it
  // has been divided by a norm) and sets next_squares, if not null, to zeros.
  uint32_t* squares = nullptr;
  uint32_t* next_squares = nullptr;
  // kResidual, FP8, with next_norm: what bounds out after the addition,
  //   |residual[t][r] next_norm[r]| <= largest_next_norm (residual_norm[t] +
  //                                                       1.07 largest_row_norm input_norm[t])
  // where input_norm is sqrt(cols) after a division by the norm and else what squares say; 1.07:
  // for e4m3's rounding.
  const float* residual_norm = nullptr;  // [T] Euclidean, before the addition
  float largest_row_norm = 0;            // of weight
  float largest_next_norm = 0;           // max_r |next_norm[r]|
  float* out_scale = nullptr;            // [T]
  bool overlap = false;                  // launch with PDL
};
// Unit of `squares` of rows of m values in e4m3's range, whose sum is below 2^32 of them.
constexpr float SwiGluSquareUnit(int64_t m) {
  constexpr double kMost = double{kMaxE4M3} * kMaxE4M3;
  int64_t unit = 1;
  while (kMost * static_cast<double>(m) > 2147483648.0 * static_cast<double>(unit)) unit *= 2;
  return static_cast<float>(unit);
}

// Once per process and device. cudaErrorNotSupported before sm_90.
cudaError_t InitDecodeGemm();
cudaError_t DecodeGemm(const DecodeGemmParams& params, cudaStream_t stream);
cudaError_t DecodeGemm(const DecodeGemmParams& params, const DecodeGemmShape& shape,
                       cudaStream_t stream);

}  // namespace hgrn2::cuda
