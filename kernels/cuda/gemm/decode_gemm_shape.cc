#include <algorithm>

#include "kernels/cuda/gemm/decode_gemm.h"

namespace hgrn2::cuda {
namespace {
constexpr int64_t kBlockBytes = 128, kShared = 220 * 1024;
constexpr int kMostStages = 16;
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
  if (tokens > shape.token_tile) return {};
  const int64_t k_blocks = CeilDiv(row_bytes, kBlockBytes);
  shape.row_tiles = static_cast<int>(CeilDiv(rows, shape.row_tile));
  if (k_blocks < shape.split) return {};
  const int64_t stage = (shape.row_tile + shape.token_tile) * kBlockBytes;
  int64_t most = std::max<int64_t>(CeilDiv(k_blocks, shape.split), 2);
  most = std::min<int64_t>(most, shape.stages > 0 ? shape.stages : kMostStages);
  shape.stages = static_cast<int>(std::min<int64_t>(kShared / stage, most));
  const int64_t partial = shape.token_tile * (shape.row_tile + 4) * 4;
  shape.shared_bytes = static_cast<size_t>(std::max(shape.stages * stage, partial)) + 1024;
  return shape;
}

DecodeGemmShape ChooseDecodeGemm(int64_t rows, int64_t cols, int32_t tokens, DType type,
                                 GemmEpilogue epilogue) {
  constexpr int64_t kMultiprocessors = 132;
  DecodeGemmShape shape;
  // Few rows: smaller tiles, so that the bytes come in through more multiprocessors, and two blocks
  // on each of these, because clusters with a multiprocessor per block would not all fit at once.
  const bool two = CeilDiv(rows, 128) * 2 <= kMultiprocessors;
  shape.row_tile = two ? 64 : 128;
  for (const int n : {32, 64, 128}) {
    shape.token_tile = n;
    if (n >= tokens) break;
  }
  // Blocks for as many multiprocessors as possible, each with two k-blocks or more. Clusters of 8
  // would leave multiprocessors idle: a cluster lives in one group of 16 or 18 of them.
  const int64_t tiles = CeilDiv(rows, shape.row_tile);
  const int64_t k_blocks = CeilDiv(cols * static_cast<int64_t>(SizeOf(type)), kBlockBytes);
  while (shape.split < 4 && tiles * shape.split * 2 <= kMultiprocessors * (two ? 2 : 1) &&
         k_blocks >= shape.split * 2 * 2) {
    shape.split *= 2;
  }
  if (two) {
    shape.stages =
        static_cast<int>(kShared / 2 / ((shape.row_tile + shape.token_tile) * kBlockBytes));
  }
  return CompleteDecodeGemm(shape, rows, cols, tokens, type, epilogue);
}

bool PreferDecodeGemm(int64_t rows, int64_t cols, int64_t tokens, DType type,
                      GemmEpilogue epilogue) {
  if (tokens > 64) return false;
  const int32_t t = static_cast<int32_t>(tokens);
  return ChooseDecodeGemm(rows, cols, t, type, epilogue).row_tile > 0;
}

}  // namespace hgrn2::cuda
