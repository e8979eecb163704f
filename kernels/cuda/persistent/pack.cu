// Copies the model's row-major weights into the order in which the persistent kernel streams them.
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/persistent/decode.h"

namespace hgrn2::cuda::persistent {
namespace {

struct PackParams {
  const uint8_t* data;  // [rows, k]
  uint8_t* out;         // this product's tiles
  int64_t rows;
  int64_t k;
  int64_t tiles;
  int32_t kpw;
  int32_t half;  // gate/up: m, up's first row; else 0
};

// Source row of row r (0..15) of a tile, or -1 for rows past the matrix.
__device__ int64_t SourceRow(const PackParams& p, int64_t tile, int r) {
  if (p.half > 0) return r < 8 ? tile * 8 + r : p.half + tile * 8 + (r - 8);
  const int64_t row = tile * kTileRows + r;
  return row < p.rows ? row : -1;
}

// One thread per 16 packed bytes. bfloat16: a lane's fragment of one k-step. Lane (g = lane / 4,
// t = lane % 4) holds, of rows g and g + 8, columns base + 8 t + 4 (j % 2) + 0..3 of k-step j,
// where base is the first column of the pair of k-steps: so a lane's activations for a pair are 8
// consecutive columns. Order of the A operand: (g, 0..1) (g + 8, 0..1) (g, 2..3) (g + 8, 2..3).
__global__ void PackBf16Kernel(PackParams p) {
  const int64_t piece = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int lane = piece % 32, warp = piece / 32 % kConsumerWarps;
  const int64_t slot = piece / (32 * kConsumerWarps);
  const int64_t tile = slot / p.kpw;
  const int j = slot % p.kpw;
  if (tile >= p.tiles) return;
  const int g = lane / 4, t = lane % 4;
  const int64_t column = (int64_t{warp} * p.kpw + (j & ~1)) * 16 + t * 8 + (j & 1) * 4;
  const uint16_t* w = reinterpret_cast<const uint16_t*>(p.data);
  uint16_t v[8];
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    const int64_t row = SourceRow(p, tile, g + (e / 2 % 2) * 8);
    const int64_t c = column + (e / 4) * 2 + e % 2;
    v[e] = row >= 0 && c < p.k ? w[row * p.k + c] : uint16_t{0};
  }
  reinterpret_cast<uint4*>(p.out)[piece] = *reinterpret_cast<const uint4*>(v);
}

// FP8: 16 bytes are a lane's fragments of a pair of k-steps: for each, a word of row g and one of
// row g + 8. A word's halves hold columns (0, 2) and (1, 3), interleaved so that product.cuh
// unpacks columns 0 and 1 with one mask: the first has its sign at bit 15 and the rest at 10..4,
// where bfloat16 wants them; of the second, the sign is at 11, the exponent's upper bits at 14..12
// and the lower nibble at 3..0.
__device__ uint32_t Interleave(uint32_t a, uint32_t b) {
  return (a & 0x80) << 8 | (a & 0x7f) << 4 | (b & 0x80) << 4 | (b & 0x70) << 8 | (b & 0x0f);
}

__global__ void PackFp8Kernel(PackParams p) {
  const int64_t piece = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int lane = piece % 32, warp = piece / 32 % kConsumerWarps;
  const int64_t pair = piece / (32 * kConsumerWarps);
  const int pairs = p.kpw / 2;
  const int64_t tile = pair / pairs;
  if (tile >= p.tiles) return;
  const int g = lane / 4, t = lane % 4;
  const int64_t column = (int64_t{warp} * p.kpw + pair % pairs * 2) * 16 + t * 8;
  uint32_t v[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int64_t row = SourceRow(p, tile, g + e % 2 * 8);
    const int64_t c = column + e / 2 * 4;
    const bool inside = row >= 0 && c < p.k;
    const uint8_t* w = p.data + row * p.k + c;
    v[e] = inside ? Interleave(w[0], w[2]) | Interleave(w[1], w[3]) << 16 : 0;
  }
  reinterpret_cast<uint4*>(p.out)[piece] = make_uint4(v[0], v[1], v[2], v[3]);
}

cudaError_t PackProduct(const MatrixView& weight, const ModelShape& shape, int layer, int product,
                        void* packed, cudaStream_t stream) {
  const ProductShape s = shape.Shape(product);
  PackParams p = {};
  p.data = static_cast<const uint8_t*>(weight.data);
  p.out = static_cast<uint8_t*>(packed) + shape.Offset(layer, product);
  p.rows = weight.rows;
  p.k = s.k;
  p.tiles = s.tiles;
  p.kpw = s.kpw;
  p.half = product == kGateUp ? static_cast<int32_t>(shape.m) : 0;
  const int64_t pieces = s.Bytes() / 16;
  const dim3 grid(static_cast<unsigned>(CeilDiv(pieces, 256)));
  return Launch(s.fp8 ? PackFp8Kernel : PackBf16Kernel, grid, dim3(256), 0, stream, false, p);
}

}  // namespace

cudaError_t PackWeights(const ModelView& model, void* packed, cudaStream_t stream) {
  const ModelShape shape = ShapeOf(model);
  for (int l = 0; l < model.num_layers; ++l) {
    const LayerView& layer = model.layers[l];
    const MatrixView* weights[] = {&layer.qfi, &layer.o, &layer.gate_up, &layer.down};
    for (int product = 0; product < kProductsPerLayer; ++product) {
      HGRN2_CUDA_RETURN_IF_ERROR(PackProduct(*weights[product], shape, l, product, packed, stream));
    }
  }
  return PackProduct(model.lm_head, shape, model.num_layers, kHead, packed, stream);
}

}  // namespace hgrn2::cuda::persistent
