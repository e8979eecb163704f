// Geometry of the persistent decode kernel: host arithmetic, no GPU needed.
#include "kernels/cuda/persistent/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace hgrn2::cuda::persistent {
namespace {

ModelShape Model13B(bool fp8) {
  ModelShape s;
  s.d = 2048, s.m = 5632, s.vocab = 32000, s.layers = 24, s.fp8 = fp8;
  return s;
}
ModelShape Model29B() {
  ModelShape s;
  s.d = 2560, s.m = 6912, s.vocab = 32000, s.layers = 32;
  return s;
}
ModelShape Small() {
  ModelShape s;
  s.d = 192, s.m = 448, s.vocab = 1003, s.layers = 3;
  return s;
}

TEST(Layout, KStepsCoverEveryColumn) {
  for (int64_t k = 64; k <= 16384; k += 64) {
    const int steps = KStepsPerWarp(k);
    EXPECT_EQ(steps % 4, 0);
    EXPECT_GE(int64_t{steps} * 16 * kConsumerWarps, k);
    EXPECT_LT(int64_t{steps - 4} * 16 * kConsumerWarps, k);
  }
}

TEST(Layout, NoPaddingForThe13BShape) {
  const ModelShape s = Model13B(false);
  const int64_t weights = s.layers * (4 * s.d * s.d + 3 * s.d * s.m) + s.vocab * s.d;
  EXPECT_EQ(s.PackedBytes(), 2 * weights);
  // FP8 layers take half; the head stays in bfloat16.
  EXPECT_EQ(Model13B(true).PackedBytes(), weights + s.vocab * s.d);
}

TEST(Layout, PaddingOfThe29BShapeIsSmall) {
  const ModelShape s = Model29B();
  const int64_t weights = s.layers * (4 * s.d * s.d + 3 * s.d * s.m) + s.vocab * s.d;
  EXPECT_LT(s.PackedBytes(), 2 * weights * 1.011);
}

TEST(Layout, OffsetsFollowEachOther) {
  for (const ModelShape& s : {Model13B(false), Model13B(true), Model29B(), Small()}) {
    int64_t expected = 0;
    for (int l = 0; l < s.layers; ++l) {
      for (int product = 0; product < kProductsPerLayer; ++product) {
        EXPECT_EQ(s.Offset(l, product), expected);
        expected += s.Shape(product).Bytes();
      }
    }
    EXPECT_EQ(s.Offset(s.layers, kHead), expected);
  }
}

TEST(Layout, EveryTileHasOneBlock) {
  for (const ModelShape& s : {Model13B(false), Model29B(), Small()}) {
    for (const int blocks : {1, 7, 114, 132}) {
      const auto ranges = AssignTiles(s, blocks);
      ASSERT_EQ(ranges.size(), static_cast<size_t>(blocks) * s.NumPhases());
      for (int phase = 0; phase < s.NumPhases(); ++phase) {
        const int product = phase + 1 == s.NumPhases() ? int{kHead} : phase % kProductsPerLayer;
        int64_t next = 0;
        for (int b = 0; b < blocks; ++b) {
          const TileRange r = ranges[static_cast<size_t>(b) * s.NumPhases() + phase];
          EXPECT_EQ(r.first, next);
          next += r.count;
        }
        EXPECT_EQ(next, s.Shape(product).tiles);
      }
    }
  }
}

// The bytes that blocks have streamed never differ by more than the largest tile, at any phase: the
// ring of a block (176 KiB or more) then covers the difference.
TEST(Layout, BlocksStreamTheSameBytes) {
  for (const ModelShape& s : {Model13B(false), Model13B(true), Model29B()}) {
    const int blocks = 132;
    const auto ranges = AssignTiles(s, blocks);
    std::vector<int64_t> streamed(blocks, 0);
    int64_t largest = 0;
    for (int product = 0; product <= kHead; ++product) {
      largest = std::max(largest, s.Shape(product).TileBytes());
    }
    for (int phase = 0; phase < s.NumPhases(); ++phase) {
      const int product = phase + 1 == s.NumPhases() ? int{kHead} : phase % kProductsPerLayer;
      for (int b = 0; b < blocks; ++b) {
        streamed[b] += ranges[static_cast<size_t>(b) * s.NumPhases() + phase].count *
                       s.Shape(product).TileBytes();
      }
      const auto [low, high] = std::minmax_element(streamed.begin(), streamed.end());
      EXPECT_LE(*high - *low, largest) << "phase " << phase;
    }
  }
}

}  // namespace
}  // namespace hgrn2::cuda::persistent
