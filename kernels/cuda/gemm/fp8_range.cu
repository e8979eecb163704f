#include "kernels/cuda/common.cuh"
#include "kernels/cuda/gemm/fp8_range.h"

namespace hgrn2::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float E4M3(const void* data, int64_t i) {
  return static_cast<float>(static_cast<const __nv_fp8_e4m3*>(data)[i]);
}

// A block per pair of rows.
__global__ void BalanceKernel(const BalanceSwiGluParams p) {
  __shared__ float scratch[32];
  const int64_t j = blockIdx.x, m = p.gate_up.rows / 2, d = p.gate_up.cols;
  float aa = 0, bb = 0, ab = 0;
  for (int64_t c = threadIdx.x; c < d; c += blockDim.x) {
    const float a = E4M3(p.gate_up.data, j * d + c) * p.norm[c],
                b = E4M3(p.gate_up.data, (m + j) * d + c) * p.norm[c];
    aa += a * a, bb += b * b, ab += a * b;
  }
  aa = BlockReduce<false>(aa, scratch);
  bb = BlockReduce<false>(bb, scratch);
  ab = BlockReduce<false>(ab, scratch);
  if (threadIdx.x != 0) return;
  float* scale = const_cast<float*>(p.gate_up.scale);
  const float most = kE4M3Rounding * kE4M3Rounding * scale[j] * scale[m + j] *
                     static_cast<float>(d) / 2 * (sqrtf(aa) * sqrtf(bb) + fabsf(ab));
  // Weights of zeros, or so small that the factor would not be a number, need none.
  constexpr float kLeast = 1e-30f;
  const float factor =
      most > kLeast && isfinite(most) ? exp2f(ceilf(log2f(most / kMaxE4M3))) : 1.0f;
  scale[m + j] /= factor;
  p.factor[j] = factor;
}

// A block per row. Norms are not negative: their bits are in their order.
__global__ void RowNormKernel(const MatrixView w, const float* norm, float* out) {
  __shared__ float scratch[32];
  const int64_t row = blockIdx.x;
  float sum = 0;
  for (int64_t c = threadIdx.x; c < w.cols; c += blockDim.x) {
    const float v = E4M3(w.data, row * w.cols + c) * (norm ? norm[c] : 1.0f);
    sum += v * v;
  }
  sum = BlockReduce<false>(sum, scratch);
  if (threadIdx.x == 0) {
    atomicMax(reinterpret_cast<unsigned*>(out), __float_as_uint(sqrtf(sum) * w.scale[row]));
  }
}

bool IsFp8(const MatrixView& w) { return w.type == DType::kF8E4M3 && w.scale && w.rows > 0; }

}  // namespace

cudaError_t BalanceSwiGlu(const BalanceSwiGluParams& p, cudaStream_t stream) {
  if (!IsFp8(p.gate_up) || p.gate_up.rows % 2 != 0) return cudaErrorInvalidValue;
  return Launch(BalanceKernel, dim3(static_cast<unsigned>(p.gate_up.rows / 2)), dim3(kThreads), 0,
                stream, false, p);
}

cudaError_t LargestRowNorm(const MatrixView& w, const float* norm, float* out,
                           cudaStream_t stream) {
  if (!IsFp8(w)) return cudaErrorInvalidValue;
  return Launch(RowNormKernel, dim3(static_cast<unsigned>(w.rows)), dim3(kThreads), 0, stream,
                false, w, norm, out);
}

}  // namespace hgrn2::cuda
