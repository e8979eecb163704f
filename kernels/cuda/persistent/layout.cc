#include "kernels/cuda/persistent/layout.h"

#include <algorithm>
#include <numeric>

namespace hgrn2::cuda::persistent {

std::vector<TileRange> AssignTiles(const ModelShape& shape, int blocks) {
  const int phases = shape.NumPhases();
  std::vector<TileRange> ranges(static_cast<size_t>(blocks) * phases);
  std::vector<int64_t> streamed(blocks, 0);
  std::vector<int> order(blocks);
  std::vector<int> count(blocks);
  for (int phase = 0; phase < phases; ++phase) {
    const int product = phase == phases - 1 ? static_cast<int>(kHead) : phase % kProductsPerLayer;
    const ProductShape s = shape.Shape(product);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return streamed[a] < streamed[b]; });
    const int64_t extra = s.tiles % blocks;
    for (int i = 0; i < blocks; ++i) {
      count[order[i]] = static_cast<int>(s.tiles / blocks + (i < extra ? 1 : 0));
    }
    int64_t first = 0;
    for (int b = 0; b < blocks; ++b) {
      ranges[static_cast<size_t>(b) * phases + phase] = {static_cast<uint16_t>(first),
                                                         static_cast<uint16_t>(count[b])};
      first += count[b];
      streamed[b] += count[b] * s.TileBytes();
    }
  }
  return ranges;
}

}  // namespace hgrn2::cuda::persistent
