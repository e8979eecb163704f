#include <algorithm>

#include "kernels/cuda/gemm/skinny_gemm.h"

namespace hgrn2::cuda {

SkinnyGemmShape ChooseSkinnyGemm(int64_t rows, int64_t cols, int32_t tokens, DType type) {
  constexpr int64_t kRows = 128, kBlockBytes = 128, kShared = 220 * 1024;
  if (type != DType::kBF16 && type != DType::kF8E4M3) return {};
  const int64_t row_bytes = cols * static_cast<int64_t>(SizeOf(type));
  if (rows % kRows != 0 || row_bytes % kBlockBytes != 0 || tokens < 1 ||
      tokens > kMaxSkinnyTokens) {
    return {};
  }
  SkinnyGemmShape shape;
  for (const int n : {32, 64, 128}) {
    shape.token_tile = n;
    if (n >= tokens) break;
  }
  // About as many blocks as multiprocessors, each with at least two k-blocks. Clusters of 8 would
  // leave multiprocessors idle: a cluster lives in one group of 16 or 18 of them.
  const int64_t tiles = rows / kRows, k_blocks = row_bytes / kBlockBytes;
  while (shape.split < 4 && tiles * shape.split * 2 <= 132 && k_blocks >= shape.split * 2 * 2) {
    shape.split *= 2;
  }
  const int64_t stage = (kRows + shape.token_tile) * kBlockBytes;
  const int64_t most = CeilDiv(k_blocks, shape.split);
  shape.stages = static_cast<int>(std::min<int64_t>(kShared / stage, std::max<int64_t>(most, 2)));
  const int64_t partial = shape.token_tile * (kRows + 4) * 4;
  shape.shared_bytes = static_cast<size_t>(std::max(shape.stages * stage, partial)) + 1024;
  return shape;
}

}  // namespace hgrn2::cuda
