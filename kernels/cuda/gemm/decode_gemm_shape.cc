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
  // 16 bytes: strides of the tensor copy engine. 8 rows: vectors of the epilogue.
  if (rows < 8 || rows % (epilogue == GemmEpilogue::kSwiGlu ? 16 : 8) != 0 || row_bytes < 16 ||
      row_bytes % 16 != 0 || tokens < 1 || tokens > kMaxDecodeGemmTokens) {
    return {};
  }
  if (epilogue == GemmEpilogue::kResidual && shape.row_tile % kSquareSumRows != 0) return {};
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
  if (share && shape.row_tile > 128) return {};  // registers for one block
  const int64_t room = share ? kHalfShared : kShared;
  shape.stages = static_cast<int>(std::min<int64_t>(room / stage, most));
  const int64_t partial = token_tile * (shape.row_tile + 8) * 4;
  shape.shared_bytes = static_cast<size_t>(std::max(shape.stages * stage, partial)) + 1024;
  return shape;
}

// By measurement (docs/kernels/decode-gemm.md): most blocks of which each has a multiprocessor to
// itself, and of those cuts the one with the largest tile.
DecodeGemmShape ChooseDecodeGemm(int64_t rows, int64_t cols, int32_t tokens, DType type,
                                 GemmEpilogue epilogue) {
  const int groups = tokens <= 64 ? 1 : 2;
  const bool one_token_tile = tokens <= groups * 64;
  DecodeGemmShape best;
  for (const int row_tile : {192, 128, 96, 64, 32}) {
    for (const int split : {1, 2, 4}) {
      if (row_tile == 192 && (one_token_tile || split > 1)) continue;
      if (split == 4 && !one_token_tile) continue;
      DecodeGemmShape s;
      s.row_tile = row_tile, s.split = split, s.groups = groups;
      s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
      if (s.row_tile == 0) continue;
      const bool share = ShareMultiprocessors(s), best_shares = ShareMultiprocessors(best);
      const bool better = best.row_tile == 0 || (best_shares && !share) ||
                          (share == best_shares &&
                           (share ? s.blocks() < best.blocks() : s.blocks() > best.blocks()));
      if (better) best = s;
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
