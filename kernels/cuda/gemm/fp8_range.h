// Ranges of FP8 activations from norms of the weights, at load. A product's input in e4m3 needs a
// scale that keeps it within +-448, not one that makes its largest element 448: elements keep their
// relative precision over 15 octaves. So no kernel has to find a row's maximum first.
// docs/kernels/decode-gemm.md, "FP8".
#pragma once

#include "kernels/cuda/common.h"
#include "kernels/cuda/model_view.h"

namespace hgrn2::cuda {

// Scales the up rows of an FP8 gate_up [2m, d] so that swish(gate) up needs none. With a = gate row
// j times `norm`, b likewise of up, and an input x norm, |x| <= sqrt(d):
//   |swish(a x) b x| <= |a x| |b x| <= d (|a| |b| + |a b|) / 2 =: 448 f / 1.07^2
// (1.07: x in e4m3). Row j of up is divided by f[j], rounded up to a power of two, and what reads
// the product has to be multiplied by it: `factor` gets it for down's columns.
struct BalanceSwiGluParams {
  MatrixView gate_up;           // kF8E4M3; scale is written
  const float* norm = nullptr;  // [d]
  float* factor = nullptr;      // [m]
};
cudaError_t BalanceSwiGlu(const BalanceSwiGluParams& params, cudaStream_t stream);

// *out = max(*out, the largest Euclidean norm of a row), of a kF8E4M3 matrix whose columns count
// times `norm`, [cols] or null.
cudaError_t LargestRowNorm(const MatrixView& matrix, const float* norm, float* out,
                           cudaStream_t stream);

}  // namespace hgrn2::cuda
