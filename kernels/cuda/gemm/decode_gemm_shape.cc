#include <algorithm>

#include "kernels/cuda/gemm/decode_gemm.h"

namespace hgrn2::cuda {
namespace {

constexpr int64_t kBlockBytes = 128, kShared = 220 * 1024, kHalfShared = 110 * 1024;
constexpr int kMostStages = 16, kMultiprocessors = 132;
// Clusters of four with a multiprocessor per block: 30 fit at once, for a cluster lives in one
// group of 16 or 18 multiprocessors.
constexpr int kMostAloneInFours = 120;

// Blocks that share a multiprocessor: all of a product run at once, but deep rings are faster.
bool ShareMultiprocessors(const DecodeGemmShape& s) {
  return s.blocks() > (s.split == 4 ? kMostAloneInFours : kMultiprocessors);
}

// Ranks cuts by what was measured on an H100: memory gives 3 TB/s, the L2 cache 7.4, a
// multiprocessor takes in 75 GB/s. In microseconds, without what all cuts cost alike.
double Estimate(const DecodeGemmShape& s, int64_t rows, int64_t row_bytes, int32_t tokens) {
  const double k_blocks = static_cast<double>(CeilDiv(CeilDiv(row_bytes, kBlockBytes), s.split));
  const double bytes = static_cast<double>((s.row_tile + tokens) * kBlockBytes) * k_blocks;
  const double into =
      bytes / 75e3 * std::max(1.0, static_cast<double>(s.blocks()) / kMultiprocessors);
  const double memory = static_cast<double>(rows * row_bytes) / 3.0e6;
  const double cache = bytes * s.blocks() / 7.4e6;
  const double shallow = ShareMultiprocessors(s) ? 3.0 : 0;
  return std::max({into, memory, cache}) + 0.25 * into + (s.split > 1 ? 0.3 : 0) + shallow;
}

}  // namespace

DecodeGemmShape CompleteDecodeGemm(DecodeGemmShape shape, int64_t rows, int64_t cols,
                                   int32_t tokens, DType type, GemmEpilogue epilogue) {
  if (type != DType::kBF16 && type != DType::kF8E4M3) return {};
  const int64_t row_bytes = cols * static_cast<int64_t>(SizeOf(type));
  // 16 bytes: strides of the tensor copy engine. 8 rows: vectors of the epilogue.
  if (rows < 8 || rows % (epilogue == GemmEpilogue::kSwiGlu ? 16 : 8) != 0 || row_bytes < 16 ||
      row_bytes % 16 != 0 || tokens < 1 || tokens > shape.groups * 64) {
    return {};
  }
  if (epilogue == GemmEpilogue::kResidual && shape.row_tile % kSquareSumRows != 0) return {};
  const int64_t k_blocks = CeilDiv(row_bytes, kBlockBytes);
  if (k_blocks < shape.split) return {};
  shape.row_tiles = static_cast<int>(CeilDiv(rows, shape.row_tile));
  const int64_t token_tile = shape.groups * 64;
  const int64_t stage = (shape.row_tile + token_tile) * kBlockBytes;
  int64_t most =
      std::min<int64_t>(kMostStages, std::max<int64_t>(CeilDiv(k_blocks, shape.split), 2));
  if (shape.stages > 0) most = std::min<int64_t>(most, shape.stages);
  const int64_t room = ShareMultiprocessors(shape) ? kHalfShared : kShared;
  shape.stages = static_cast<int>(std::min<int64_t>(room / stage, most));
  const int64_t partial = token_tile * (shape.row_tile + 8) * 4;
  shape.shared_bytes = static_cast<size_t>(std::max(shape.stages * stage, partial)) + 1024;
  return shape;
}

DecodeGemmShape ChooseDecodeGemm(int64_t rows, int64_t cols, int32_t tokens, DType type,
                                 GemmEpilogue epilogue) {
  const int64_t row_bytes = cols * static_cast<int64_t>(SizeOf(type));
  DecodeGemmShape best;
  double least = 0;
  for (const int row_tile : {128, 96, 64, 32}) {
    for (const int split : {1, 2, 4}) {
      DecodeGemmShape s;
      s.row_tile = row_tile, s.split = split, s.groups = tokens <= 64 ? 1 : 2;
      s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
      if (s.row_tile == 0) continue;
      const double us = Estimate(s, rows, row_bytes, tokens);
      if (best.row_tile == 0 || us < least) least = us, best = s;
    }
  }
  return best;
}

bool PreferDecodeGemm(int64_t rows, int64_t cols, int64_t tokens, DType type,
                      GemmEpilogue epilogue) {
  if (tokens > kMaxDecodeGemmTokens) return false;
  return ChooseDecodeGemm(rows, cols, static_cast<int32_t>(tokens), type, epilogue).row_tile > 0;
}

}  // namespace hgrn2::cuda
