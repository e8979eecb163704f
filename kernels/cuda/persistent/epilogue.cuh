// What goes into a product of the layer and what happens to its sums.
//
// Epilogues run on whole warps, on pairs of sums of one token: rows g and g + 8 of a tile. Prepare
// fetches what Finish will need and is called before the multiplications.
#pragma once

#include "kernels/cuda/persistent/context.cuh"

namespace hgrn2::cuda::persistent {

struct ProductArgs {
  int product;
  TileRange range;  // this block's tiles
  int k, kpw;
  const __nv_bfloat16* x;  // [batch][k]
  // Sums of squares [batch][d / 16] of what x was before its norm's weight: the norm's 1 / rms
  // multiplies the sums instead of the inputs, off the critical path. Null: no norm.
  const float* squares;
  float eps;
  const float* scale;  // FP8: per row
  // The residual products leave their sum times the next norm's weight for the next product,
  // carrying this power of two (kFp8ActivationScale or 1).
  const float* next_norm;  // [d]
  float carry;
  float uncarry;  // FP8: what x carried and what unpacking took off; else 1
};

struct EpilogueInputs {
  float2 scale, x, weight;
};

// Loads only: nothing here waits for them.
__device__ __forceinline__ EpilogueInputs Prepare(const Context& c, const ProductArgs& a, int tile,
                                                  int token, int g) {
  EpilogueInputs in = {{1, 1}, {0, 0}, {0, 0}};
  const int row = a.product == kGateUp ? tile * 8 + g : tile * 16 + g;
  if (a.scale != nullptr) {
    in.scale = {__ldg(a.scale + row),
                __ldg(a.scale + row + (a.product == kGateUp ? static_cast<int>(c.p.shape.m) : 8))};
  }
  if (a.next_norm != nullptr) {
    in.weight = {__ldg(a.next_norm + row), __ldg(a.next_norm + row + 8)};
    if (token < c.p.batch) {
      const float* x = c.ws.x + token * static_cast<int>(c.p.shape.d) + row;
      in.x = {__ldcg(x), __ldcg(x + 8)};
    }
  }
  return in;
}

// x += y; leaves what the next norm and the next product need.
__device__ __forceinline__ void FinishResidual(const Context& c, const ProductArgs& a, int tile,
                                               int token, int g, float2 y,
                                               const EpilogueInputs& in) {
  const int d = static_cast<int>(c.p.shape.d);
  const float x0 = in.x.x + y.x, x1 = in.x.y + y.y;
  float squares = x0 * x0 + x1 * x1;
  squares += __shfl_xor_sync(0xffffffffu, squares, 4);
  squares += __shfl_xor_sync(0xffffffffu, squares, 8);
  squares += __shfl_xor_sync(0xffffffffu, squares, 16);
  if (token >= c.p.batch) return;
  const int at = token * d + tile * 16 + g;
  c.ws.x[at] = x0;
  c.ws.x[at + 8] = x1;
  c.ws.x_in[at] = __float2bfloat16(x0 * in.weight.x * a.carry);
  c.ws.x_in[at + 8] = __float2bfloat16(x1 * in.weight.y * a.carry);
  if (g == 0) c.ws.x_squares[token * (d / 16) + tile] = squares;
}

__device__ __forceinline__ void Finish(const Context& c, const ProductArgs& a, int tile, int token,
                                       int g, float2 y, const EpilogueInputs& in) {
  const bool valid = token < c.p.batch;
  const float r = a.uncarry * (a.squares != nullptr && valid ? c.row_scale[token] : 1.0f);
  y.x *= in.scale.x * r;
  y.y *= in.scale.y * r;
  if (a.next_norm != nullptr) return FinishResidual(c, a, tile, token, g, y, in);
  if (!valid) return;
  if (a.product == kQfi) {
    __nv_bfloat16* out = c.ws.qfi + token * 3 * static_cast<int>(c.p.shape.d) + tile * 16 + g;
    out[0] = __float2bfloat16(y.x);
    out[8] = __float2bfloat16(y.y);
  } else if (a.product == kGateUp) {  // rows g are gate's, rows g + 8 up's
    c.ws.u[token * static_cast<int>(c.p.shape.m) + tile * 8 + g] =
        __float2bfloat16(Swish(y.x) * y.y * a.carry);
  } else {
    const int row = tile * 16 + g, vocab = static_cast<int>(c.p.shape.vocab);
    float* out = c.p.logits + int64_t{token} * vocab;
    if (row < vocab) out[row] = y.x;
    if (row + 8 < vocab) out[row + 8] = y.y;
  }
}

}  // namespace hgrn2::cuda::persistent
