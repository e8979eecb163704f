#include <algorithm>

#include "kernels/cuda/gemm/decode_gemm.h"

namespace hgrn2::cuda {
namespace {

constexpr int64_t kBlockBytes = 128, kShared = 220 * 1024, kHalfShared = 110 * 1024;
constexpr int kMostStages = 16, kMultiprocessors = 132;
// Clusters of four with a multiprocessor per block: 30 fit at once, for a cluster lives in one
// group of 16 or 18 multiprocessors.
constexpr int kMostAloneInFours = 120;

// More blocks than can have a multiprocessor each: two share one, with half the ring.
bool ShareMultiprocessors(const DecodeGemmShape& s) {
  return s.blocks() > (s.split == 4 ? kMostAloneInFours : kMultiprocessors);
}

}  // namespace

DecodeGemmShape CompleteDecodeGemm(DecodeGemmShape shape, int64_t rows, int64_t cols,
                                   int32_t tokens, DType type, GemmEpilogue epilogue) {
  if (type != DType::kBF16 && type != DType::kF8E4M3) return {};
  const int64_t row_bytes = cols * static_cast<int64_t>(SizeOf(type));
  const int parts = epilogue == GemmEpilogue::kSwiGlu ? 2 : 1;
  // 16 bytes: strides of the tensor copy engine. 16 rows: the order in which it brings them.
  if (rows < 16 || rows % (16 * parts) != 0 || row_bytes < 16 || row_bytes % 16 != 0 ||
      tokens < 1 || tokens > kMaxDecodeGemmTokens) {
    return {};
  }
  // Blocks of a split finish as many sixteens of rows each, or sums of squares, or pairs of
  // sixteens.
  const int unit = epilogue == GemmEpilogue::kStore ? 16 : 32;
  static_assert(kSquareSumRows == 32);
  if (shape.split == 3 || shape.row_tile % (unit * shape.split) != 0) return {};
  const int64_t k_blocks = CeilDiv(row_bytes, kBlockBytes);
  if (k_blocks < shape.split) return {};
  shape.row_tiles = static_cast<int>(CeilDiv(rows, shape.row_tile));
  const int64_t token_tile = shape.groups * 64;
  shape.token_tiles = static_cast<int>(CeilDiv(tokens, token_tile));
  const int64_t stage = (shape.row_tile + token_tile) * kBlockBytes;
  int64_t most =
      std::min<int64_t>(kMostStages, std::max<int64_t>(CeilDiv(k_blocks, shape.split), 2));
  if (shape.stages > 0) most = std::min<int64_t>(most, shape.stages);
  const bool share = ShareMultiprocessors(shape);
  if (share && !MayShare(shape.row_tile, shape.groups, epilogue)) return {};
  const int64_t room = share ? kHalfShared : kShared;
  shape.stages = static_cast<int>(std::min<int64_t>(room / stage, most));
  const int64_t partial = shape.split > 1 ? token_tile * shape.row_tile * 4 : 0;
  shape.shared_bytes = static_cast<size_t>(std::max(shape.stages * stage, partial)) + 1024;
  return shape;
}

// By measurement (docs/kernels/decode-gemm.md), of the cuts that give each block a multiprocessor
// to itself: one without a split that keeps two thirds of them busy; else the one with most blocks
// that leaves each enough columns; and of those the one with the largest tile.
DecodeGemmShape ChooseDecodeGemm(int64_t rows, int64_t cols, int32_t tokens, DType type,
                                 GemmEpilogue epilogue) {
  const int groups = tokens <= 64 ? 1 : 2;
  const bool one_token_tile = tokens <= groups * 64;
  constexpr int kBusy = 88, kFewestKBlocks = 8;
  const int64_t k_blocks = CeilDiv(cols * static_cast<int64_t>(SizeOf(type)), kBlockBytes);
  DecodeGemmShape best;
  int best_rank = 0;
  for (const int row_tile : {192, 128, 96, 64, 32}) {
    for (const int split : {1, 2, 4}) {
      if (row_tile == 192 && (one_token_tile || split > 1)) continue;
      if (split > 1 && k_blocks < split * kFewestKBlocks) continue;
      if (split == 4 && groups > 1) continue;
      DecodeGemmShape s;
      s.row_tile = row_tile, s.split = split, s.groups = groups;
      s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
      if (s.row_tile == 0) continue;
      const bool shares = ShareMultiprocessors(s);
      const int rank = shares ? 1 : split == 1 && row_tile >= 64 && s.blocks() >= kBusy ? 3 : 2;
      const bool better =
          rank > best_rank ||
          (rank == best_rank && (shares ? s.blocks() < best.blocks() : s.blocks() > best.blocks()));
      if (better) best = s, best_rank = rank;
    }
  }
  return best;
}

bool PreferDecodeGemm(int64_t rows, int64_t cols, int64_t tokens, DType type,
                      GemmEpilogue epilogue) {
  if (tokens > kMaxDecodeGemmTokens) return false;
  const DecodeGemmShape s =
      ChooseDecodeGemm(rows, cols, static_cast<int32_t>(tokens), type, epilogue);
  return s.row_tile > 0 && (s.token_tiles == 1 || !ShareMultiprocessors(s));
}

}  // namespace hgrn2::cuda
