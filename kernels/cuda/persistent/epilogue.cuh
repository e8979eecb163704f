// What happens to a product's sums: one struct per product. See RunProduct for the protocol.
#pragma once

#include "kernels/cuda/persistent/context.cuh"
#include "kernels/cuda/persistent/product.cuh"

namespace hgrn2::cuda::persistent {

// Rows r0, r1 of a product's per-row FP8 factors; 1 without FP8. Folds in what the activations carry.
template <bool kFp8>
__device__ __forceinline__ float2 WeightScales(const float* scale, int64_t r0, int64_t r1) {
  if constexpr (!kFp8) return {1.0f, 1.0f};
  return {__ldg(scale + r0) * kFp8ActivationScale, __ldg(scale + r1) * kFp8ActivationScale};
}

// q | f | i projections, stored raw.
template <bool kFp8>
struct QfiEpilogue {
  struct Inputs {
    float2 scale;
  };
  const Context& c;
  const LayerPointers& layer;

  __device__ __forceinline__ void RowScales(Context& context) {
    persistent::RowScales(context, c.ws.x_squares, c.p.norm_eps);
  }
  __device__ __forceinline__ Inputs Prepare(int64_t tile, int token, int g) const {
    return {WeightScales<kFp8>(layer.scale[kQfi], tile * 16 + g, tile * 16 + g + 8)};
  }
  __device__ __forceinline__ void Finish(int64_t tile, int token, int g, float y0, float y1, const Inputs& in) const {
    if (token >= c.p.batch) return;
    __nv_bfloat16* out = c.ws.qfi + token * 3 * c.p.shape.d + tile * 16 + g;
    const float r = c.row_scale[token];
    out[0] = __float2bfloat16(y0 * in.scale.x * r);
    out[8] = __float2bfloat16(y1 * in.scale.y * r);
  }
};

// x += y; leaves x times the next norm's weight and the sums of squares that norm needs.
// kNormed: the product's input was o (normed by g_norm); else u.
template <bool kFp8, bool kNormed>
struct ResidualEpilogue {
  struct Inputs {
    float2 scale, x, weight;
  };
  const Context& c;
  const float* scales;
  const float* next_norm;  // [d]
  float next_scale;        // what the next product's activations carry

  __device__ __forceinline__ void RowScales(Context& context) {
    if constexpr (kNormed) persistent::RowScales(context, c.ws.o_squares, c.p.g_norm_eps);
  }
  __device__ __forceinline__ Inputs Prepare(int64_t tile, int token, int g) const {
    const int64_t row = tile * 16 + g;
    Inputs in = {WeightScales<kFp8>(scales, row, row + 8), {0, 0},
                 {__ldg(next_norm + row), __ldg(next_norm + row + 8)}};
    if (token < c.p.batch) {
      const float* x = c.ws.x + token * c.p.shape.d + row;
      in.x = {__ldcg(x), __ldcg(x + 8)};
    }
    return in;
  }
  __device__ __forceinline__ void Finish(int64_t tile, int token, int g, float y0, float y1, const Inputs& in) const {
    const bool valid = token < c.p.batch;
    const float r = kNormed && valid ? c.row_scale[token] : 1.0f;
    const float x0 = in.x.x + y0 * in.scale.x * r, x1 = in.x.y + y1 * in.scale.y * r;
    float squares = x0 * x0 + x1 * x1;
    squares += __shfl_xor_sync(0xffffffffu, squares, 4);
    squares += __shfl_xor_sync(0xffffffffu, squares, 8);
    squares += __shfl_xor_sync(0xffffffffu, squares, 16);
    if (!valid) return;
    const int64_t at = token * c.p.shape.d + tile * 16 + g;
    c.ws.x[at] = x0;
    c.ws.x[at + 8] = x1;
    c.ws.x_in[at] = __float2bfloat16(x0 * in.weight.x * next_scale);
    c.ws.x_in[at + 8] = __float2bfloat16(x1 * in.weight.y * next_scale);
    if (g == 0) c.ws.x_squares[token * (c.p.shape.d / 16) + tile] = squares;
  }
};

// u = swish(gate) * up; rows g are gate's, rows g + 8 up's.
template <bool kFp8>
struct GateUpEpilogue {
  struct Inputs {
    float2 scale;
  };
  const Context& c;
  const LayerPointers& layer;

  __device__ __forceinline__ void RowScales(Context& context) {
    persistent::RowScales(context, c.ws.x_squares, c.p.norm_eps);
  }
  __device__ __forceinline__ Inputs Prepare(int64_t tile, int token, int g) const {
    return {WeightScales<kFp8>(layer.scale[kGateUp], tile * 8 + g, c.p.shape.m + tile * 8 + g)};
  }
  __device__ __forceinline__ void Finish(int64_t tile, int token, int g, float y0, float y1, const Inputs& in) const {
    if (token >= c.p.batch) return;
    const float r = c.row_scale[token];
    const float gate = y0 * in.scale.x * r, up = y1 * in.scale.y * r;
    c.ws.u[token * c.p.shape.m + tile * 8 + g] =
        __float2bfloat16(Swish(gate) * up * (kFp8 ? kFp8ActivationScale : 1.0f));
  }
};

struct HeadEpilogue {
  struct Inputs {};
  const Context& c;

  __device__ __forceinline__ void RowScales(Context& context) {
    persistent::RowScales(context, c.ws.x_squares, c.p.norm_eps);
  }
  __device__ __forceinline__ Inputs Prepare(int64_t, int, int) const { return {}; }
  __device__ __forceinline__ void Finish(int64_t tile, int token, int g, float y0, float y1, const Inputs&) const {
    if (token >= c.p.batch) return;
    const int64_t row = tile * 16 + g;
    float* out = c.p.logits + token * c.p.shape.vocab;
    const float r = c.row_scale[token];
    if (row < c.p.shape.vocab) out[row] = y0 * r;
    if (row + 8 < c.p.shape.vocab) out[row + 8] = y1 * r;
  }
};

}  // namespace hgrn2::cuda::persistent
