#include "kernels/cuda/common.cuh"
#include "kernels/cuda/norm/norm.h"

namespace hgrn2::cuda {
namespace {

__device__ __forceinline__ void Load4(const float* p, float (&v)[4]) {
  const float4 x = *reinterpret_cast<const float4*>(p);
  v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
}
__device__ __forceinline__ void Load4(const __nv_bfloat16* p, float (&v)[4]) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  const float2 a = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw.x));
  const float2 b = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw.y));
  v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y;
}
template <typename T>
__device__ __forceinline__ void Store4(T* p, const float (&v)[4]) {
  cuda::Store4(p, make_float4(v[0], v[1], v[2], v[3]));
}

// One block per row; the row stays in registers between the passes.
template <typename X, typename Delta, typename Out, int kChunks>
__global__ void RmsNormKernel(const RmsNormParams p) {
  __shared__ float scratch[32];
  const int64_t t = blockIdx.x;
  const int d4 = p.d / 4;
  float weight[kChunks][4], v[kChunks][4];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {  // weights do not depend on the kernel ahead
    const int i = threadIdx.x + c * blockDim.x;
    if (i < d4) Load4(p.weight + 4 * i, weight[c]);
  }
  GridDependencyLaunch();
  GridDependencyWait();
  const int64_t row = p.row_index ? p.row_index[t] : t;
  Out* out = static_cast<Out*>(p.out) + t * p.d;
  if (row < 0) {
    const float zeros[4] = {};
    for (int i = threadIdx.x; i < d4; i += blockDim.x) Store4(out + 4 * i, zeros);
    if (p.out_scale && threadIdx.x == 0) p.out_scale[t] = 0.0f;
    if (p.norm_out && threadIdx.x == 0) p.norm_out[t] = 0.0f;
    return;
  }
  X* x = static_cast<X*>(p.x) + row * p.d;
  const Delta* delta = static_cast<const Delta*>(p.delta);
  float extra[kChunks][4], squares = 0;
  if (delta && p.delta_square_sums) {
    const float* from = p.delta_square_sums + row * p.num_delta_square_sums;
    for (int i = threadIdx.x; i < p.num_delta_square_sums; i += blockDim.x) squares += from[i];
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {  // all on their way before the first is needed
    const int i = threadIdx.x + c * blockDim.x;
    if (i >= d4) continue;
    Load4(x + 4 * i, v[c]);
    if (delta) Load4(delta + row * p.d + 4 * i, extra[c]);
  }
  float delta_scale = delta && p.delta_row_scale ? p.delta_row_scale[row] : 1.0f;
  if (delta && p.delta_square_sums) {
    delta_scale *= rsqrtf(BlockReduce<false>(squares, scratch) / p.d + p.delta_eps);
  }
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int i = threadIdx.x + c * blockDim.x;
    if (i >= d4) continue;
    if (delta) {
      if (p.delta_col_scale) {
        float scale[4];
        Load4(p.delta_col_scale + 4 * i, scale);
#pragma unroll
        for (int j = 0; j < 4; ++j) extra[c][j] *= scale[j];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) v[c][j] = fmaf(extra[c][j], delta_scale, v[c][j]);
      if (!p.row_index) Store4(x + 4 * i, v[c]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += v[c][j] * v[c][j];
  }
  sum = BlockReduce<false>(sum, scratch);
  if (p.norm_out && threadIdx.x == 0) p.norm_out[t] = sqrtf(sum);
  const float scale = rsqrtf(sum / p.d + p.eps);
  float amax = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int i = threadIdx.x + c * blockDim.x;
    if (i >= d4) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      v[c][j] *= scale * weight[c][j];
      amax = fmaxf(amax, fabsf(v[c][j]));
    }
  }
  float quantise = 1.0f;
  if constexpr (sizeof(Out) == 1) {
    amax = fmaxf(BlockReduce<true>(amax, scratch), 1e-12f);
    quantise = kMaxE4M3 / amax;
    if (threadIdx.x == 0) p.out_scale[t] = amax / kMaxE4M3;
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int i = threadIdx.x + c * blockDim.x;
    if (i >= d4) continue;
    if constexpr (sizeof(Out) == 1) {
#pragma unroll
      for (int j = 0; j < 4; ++j) v[c][j] *= quantise;
    }
    Store4(out + 4 * i, v[c]);
  }
}

template <typename X, typename Delta, typename Out>
cudaError_t Dispatch(const RmsNormParams& p, cudaStream_t stream) {
  const RmsNormShape shape = ChooseRmsNormShape(p.d);
  const dim3 grid(static_cast<unsigned>(p.rows)), block(shape.threads);
  switch (shape.chunks) {
    case 1:
      return Launch(RmsNormKernel<X, Delta, Out, 1>, grid, block, 0, stream, p.overlap, p);
    case 2:
      return Launch(RmsNormKernel<X, Delta, Out, 2>, grid, block, 0, stream, p.overlap, p);
    case 4:
      return Launch(RmsNormKernel<X, Delta, Out, 4>, grid, block, 0, stream, p.overlap, p);
    case 8:
      return Launch(RmsNormKernel<X, Delta, Out, 8>, grid, block, 0, stream, p.overlap, p);
    case 16:
      return Launch(RmsNormKernel<X, Delta, Out, 16>, grid, block, 0, stream, p.overlap, p);
  }
  return cudaErrorInvalidValue;
}

template <typename X, typename Delta>
cudaError_t DispatchOut(const RmsNormParams& p, cudaStream_t stream) {
  switch (p.out_type) {
    case DType::kF32:
      return Dispatch<X, Delta, float>(p, stream);
    case DType::kBF16:
      return Dispatch<X, Delta, __nv_bfloat16>(p, stream);
    case DType::kF8E4M3:
      return Dispatch<X, Delta, __nv_fp8_e4m3>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

RmsNormShape ChooseRmsNormShape(int32_t d) {
  if (d <= 0 || d % 8 != 0 || d > 16384) return {};
  constexpr int kMaxThreads = 256;
  int chunks = 1;
  while (chunks * kMaxThreads < d / 4) chunks *= 2;
  const int threads = static_cast<int>(CeilDiv(CeilDiv(d / 4, chunks), 32) * 32);
  return {threads, chunks};
}

cudaError_t RmsNorm(const RmsNormParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  if (ChooseRmsNormShape(p.d).chunks == 0 || p.rows < 0) return cudaErrorInvalidValue;
  if (p.out_type == DType::kF8E4M3 && !p.out_scale) return cudaErrorInvalidValue;
  const bool bf16_delta = p.delta_type == DType::kBF16;
  if (p.x_type == DType::kF32) {
    return bf16_delta ? DispatchOut<float, __nv_bfloat16>(p, stream)
                      : DispatchOut<float, float>(p, stream);
  }
  if (p.x_type == DType::kBF16) return DispatchOut<__nv_bfloat16, __nv_bfloat16>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace hgrn2::cuda
