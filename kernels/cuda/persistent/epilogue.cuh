// What goes into a product of the layer and what happens to its sums.
//
// Epilogues run on whole warps, whose lanes hold all rows of their tiles. Prepare fetches what
// Finish will need and is called before the multiplications.
//
// A product and a sum next to each other are written as intrinsics: left to the compiler, which of
// the two is contracted, and with which product, may differ between instances of the kernel, and
// with it a sequence's bits between batches and exchanges.
#pragma once

#include "kernels/cuda/persistent/context.cuh"

namespace hgrn2::cuda::persistent {

template <bool kFlags>
struct ProductArgs {
  int product;
  TileRange range;  // this block's tiles
  int k, kpw;
  const Cell<kFlags>* x;  // [k / 2] pairs of token 0; the workspace's stride apart
  // Sums of squares [d / 16] of what x was before its norm's weight: the norm's 1 / rms multiplies
  // the sums instead of the inputs, off the critical path. Null: no norm.
  const Cell<kFlags>* squares;
  float eps;
  const float* scale;  // FP8: per row
  // The residual products leave their sum times the next norm's weight for the next product,
  // carrying this power of two (kFp8ActivationScale or 1).
  const float* next_norm;  // [d]
  float carry;
  float uncarry;  // FP8: what x carried and what unpacking took off; else 1
};

// A thread's part of the epilogue: rows g and g + 8 of one tile for one token.
struct Unit {
  int tile, token, g;
  bool valid;
};
// Lanes between those of rows g and g + 1.
template <bool kFlags>
constexpr int kRowLanes = kFlags ? 1 : 4;

template <bool kFlags>
struct EpilogueInputs {
  float2 scale, weight;
  Cell<kFlags> x[2];
};

template <bool kFlags>
__device__ __forceinline__ Cell<kFlags>* ResidualAt(const Context<kFlags>& c, const Unit& u) {
  return c.ws.x + u.token * c.ws.stride + u.tile * 16 + u.g;
}

// Loads only: nothing here waits for them.
template <bool kFlags>
__device__ __forceinline__ EpilogueInputs<kFlags> Prepare(const Context<kFlags>& c,
                                                          const ProductArgs<kFlags>& a,
                                                          const Unit& u) {
  EpilogueInputs<kFlags> in = {{1, 1}, {0, 0}, {}};
  const int row = a.product == kGateUp ? u.tile * 8 + u.g : u.tile * 16 + u.g;
  if (a.scale != nullptr) {
    in.scale = {__ldg(a.scale + row),
                __ldg(a.scale + row + (a.product == kGateUp ? static_cast<int>(c.p.shape.m) : 8))};
  }
  if (a.next_norm != nullptr) {
    in.weight = {__ldg(a.next_norm + row), __ldg(a.next_norm + row + 8)};
    if (u.valid) {
      const Cell<kFlags>* x = ResidualAt(c, u);
      in.x[0] = LoadCell(x), in.x[1] = LoadCell(x + 8);
    }
  }
  return in;
}

// Makes pairs of neighbouring channels from rows g and g + 8 of a tile of 16: the lanes of rows g
// and g ^ 1 exchange one of their two numbers. Returns this lane's pair, *index in the tile.
template <bool kFlags>
__device__ __forceinline__ uint32_t PairRows(float low, float high, int g, int* index) {
  const bool odd = g % 2 != 0;
  const float other = __shfl_xor_sync(0xffffffffu, odd ? low : high, kRowLanes<kFlags>);
  *index = odd * 4 + g / 2;
  return odd ? PackPair(other, high) : PackPair(low, other);
}

// x += y; leaves what the next norm and the next product need.
template <bool kFlags>
__device__ __forceinline__ void FinishResidual(const Context<kFlags>& c,
                                               const ProductArgs<kFlags>& a, const Unit& u,
                                               float2 y, EpilogueInputs<kFlags>& in) {
  Cell<kFlags>* x = ResidualAt(c, u);
  if (u.valid) {
    // O adds to what the last layer's down product or the embedding left, three phases ago; down to
    // what O left.
    const uint32_t written = c.flag - (a.product == kOut ? 3 : 2);
    Await(x, written, in.x[0]);
    Await(x + 8, written, in.x[1]);
  }
  const float x0 = __fadd_rn(__uint_as_float(in.x[0].bits), y.x);
  const float x1 = __fadd_rn(__uint_as_float(in.x[1].bits), y.y);
  int pair = 0;
  const uint32_t bits =
      PairRows<kFlags>(__fmul_rn(__fmul_rn(x0, in.weight.x), a.carry),
                       __fmul_rn(__fmul_rn(x1, in.weight.y), a.carry), u.g, &pair);
  const int row = u.token * c.ws.stride;
  if (u.valid) StoreCell(c.ws.x_in + row + u.tile * 8 + pair, bits, c.flag);
  float squares = __fmaf_rn(x0, x0, __fmul_rn(x1, x1));
#pragma unroll
  for (int rows = 1; rows < 8; rows *= 2) {
    squares = __fadd_rn(squares, __shfl_xor_sync(0xffffffffu, squares, rows * kRowLanes<kFlags>));
  }
  if (!u.valid) return;
  if (u.g == 0) StoreCell(c.ws.x_squares + row + u.tile, __float_as_uint(squares), c.flag);
  StoreCell(x, __float_as_uint(x0), c.flag);
  StoreCell(x + 8, __float_as_uint(x1), c.flag);
}

template <bool kFlags>
__device__ __forceinline__ void Finish(const Context<kFlags>& c, const ProductArgs<kFlags>& a,
                                       const Unit& u, float2 y, EpilogueInputs<kFlags>& in) {
  const float r =
      __fmul_rn(a.uncarry, a.squares != nullptr && u.valid ? c.row_scale[u.token] : 1.0f);
  y.x = __fmul_rn(y.x, __fmul_rn(in.scale.x, r));
  y.y = __fmul_rn(y.y, __fmul_rn(in.scale.y, r));
  if (a.next_norm != nullptr) return FinishResidual(c, a, u, y, in);
  const int row = u.token * c.ws.stride;
  if (a.product == kQfi) {
    int pair = 0;
    const uint32_t bits = PairRows<kFlags>(y.x, y.y, u.g, &pair);
    if (u.valid) StoreCell(c.ws.qfi + row + u.tile * 8 + pair, bits, c.flag);
  } else if (a.product == kGateUp) {  // rows g are gate's, rows g + 8 up's
    const float out = __fmul_rn(__fmul_rn(Swish(y.x), y.y), a.carry);
    const float next = __shfl_xor_sync(0xffffffffu, out, kRowLanes<kFlags>);
    if (u.valid && u.g % 2 == 0) {
      StoreCell(c.ws.u + row + u.tile * 4 + u.g / 2, PackPair(out, next), c.flag);
    }
  } else if (u.valid) {
    const int channel = u.tile * 16 + u.g, vocab = static_cast<int>(c.p.shape.vocab);
    float* out = c.p.logits + int64_t{u.token} * vocab;
    if (channel < vocab) out[channel] = y.x;
    if (channel + 8 < vocab) out[channel + 8] = y.y;
  }
}

}  // namespace hgrn2::cuda::persistent
