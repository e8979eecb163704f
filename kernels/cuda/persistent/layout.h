// Geometry of the persistent decode kernel: how weights are packed and which block works on what.
// Pure host arithmetic (also usable in device code): tested without a GPU.
//
// Packing. A product y = W x with W [R, K] is cut into tiles of 16 rows. A tile is a sequence of
// `slots`; slot j holds, for each of the 8 consumer warps w, the 16 x 16 block of columns of its
// j-th k-step. Warp w owns the columns [w * kpw * 16, (w + 1) * kpw * 16), kpw = KStepsPerWarp(K):
// the split over K inside a block. Inside a slot a lane's bytes are contiguous and in the order of
// the A operand of mma.m16n8k16, so a warp reads its part with one conflict-free 16-byte load per
// lane.
#pragma once

#include <cstdint>
#include <vector>

namespace hgrn2::cuda::persistent {

#if defined(__CUDACC__)
#define HGRN2_HOST_DEVICE __host__ __device__
#else
#define HGRN2_HOST_DEVICE
#endif

constexpr int kTileRows = 16;
constexpr int kConsumerWarps = 8;
constexpr int kConsumers = kConsumerWarps * 32;
// Whole warpgroups, so that registers can be moved from the producer's to the consumers'.
constexpr int kThreads = kConsumers + 128;
constexpr int kMaxBatch = 32;

// Products of a layer, in the order of execution.
enum Product : int { kQfi = 0, kOut = 1, kGateUp = 2, kDown = 3, kHead = 4 };
constexpr int kProductsPerLayer = 4;

// k-steps of 16 columns per warp, a multiple of 4: what a stage of the ring holds. Columns past K
// are packed as zeros (none for d = 2048 and 2560, m = 5632; 3.7 % for m = 6912).
HGRN2_HOST_DEVICE constexpr int KStepsPerWarp(int64_t k) {
  return 4 * static_cast<int>((k + 16 * 4 * kConsumerWarps - 1) / (16 * 4 * kConsumerWarps));
}
// Bytes of a slot: 8 warps x 16 x 16 weights.
HGRN2_HOST_DEVICE constexpr int SlotBytes(bool fp8) { return kConsumerWarps * 256 * (fp8 ? 1 : 2); }

struct ProductShape {
  int64_t tiles = 0;
  int64_t k = 0;
  int kpw = 0;
  bool fp8 = false;
  HGRN2_HOST_DEVICE int64_t TileBytes() const { return int64_t{kpw} * SlotBytes(fp8); }
  HGRN2_HOST_DEVICE int64_t Bytes() const { return tiles * TileBytes(); }
};

struct ModelShape {
  int64_t d = 0, m = 0, vocab = 0;
  int layers = 0;
  bool fp8 = false;  // layers' weights; the head is always bfloat16

  // Gate/up tiles interleave 8 gate rows (tile rows 0..7) with the same 8 up rows (8..15).
  HGRN2_HOST_DEVICE ProductShape Shape(int product) const {
    ProductShape s;
    s.k = product == kDown ? m : d;
    s.kpw = KStepsPerWarp(s.k);
    s.fp8 = fp8 && product != kHead;
    switch (product) {
      case kQfi:
        s.tiles = 3 * d / kTileRows;
        break;
      case kGateUp:
        s.tiles = 2 * m / kTileRows;
        break;
      case kHead:
        s.tiles = (vocab + kTileRows - 1) / kTileRows;
        break;
      default:
        s.tiles = d / kTileRows;
    }
    return s;
  }
  HGRN2_HOST_DEVICE int64_t LayerBytes() const {
    return Shape(kQfi).Bytes() + Shape(kOut).Bytes() + Shape(kGateUp).Bytes() +
           Shape(kDown).Bytes();
  }
  // Offset of a product's tiles in the packed weights. The head follows the last layer.
  HGRN2_HOST_DEVICE int64_t Offset(int layer, int product) const {
    int64_t offset = layer * LayerBytes();
    if (product == kHead) return offset;
    for (int p = 0; p < product; ++p) offset += Shape(p).Bytes();
    return offset;
  }
  HGRN2_HOST_DEVICE int64_t PackedBytes() const {
    return Offset(layers, kHead) + Shape(kHead).Bytes();
  }
  HGRN2_HOST_DEVICE int NumPhases() const { return layers * kProductsPerLayer + 1; }
};

// Tiles [first, first + count) of one product for one block.
struct TileRange {
  uint16_t first = 0;
  uint16_t count = 0;
};

// [blocks][NumPhases()], phase = layer * 4 + product, the head last. Each product's tiles are split
// as evenly as whole tiles allow; who gets one more is chosen so that the bytes a block has
// streamed since the start of the step stay level. Because a block's weights arrive ahead of time
// through a ring, it is these running totals that decide when the last block is ready, not the
// count in one phase.
std::vector<TileRange> AssignTiles(const ModelShape& shape, int blocks);

}  // namespace hgrn2::cuda::persistent
