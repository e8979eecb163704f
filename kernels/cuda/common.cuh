// Device-side basics shared by the CUDA kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/common.h"

namespace hgrn2::cuda {

// Waits until every kernel ahead in the stream has finished and its writes are visible. A no-op for
// a kernel launched without PDL and before sm_90.
__device__ __forceinline__ void GridDependencyWait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel's blocks start (they wait in GridDependencyWait for this one's end).
__device__ __forceinline__ void GridDependencyLaunch() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <typename T>
__device__ __forceinline__ float ToFloat(T x) {
  return static_cast<float>(x);
}
template <typename T>
__device__ __forceinline__ T FromFloat(float x) {
  return static_cast<T>(x);
}

__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// Sum (or maximum) over a block of at most 32 warps; every thread gets it. `scratch`: 32 floats.
// May be called again with the same scratch at once.
template <bool kMax>
__device__ __forceinline__ float BlockReduce(float x, float* scratch) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
  x = kMax ? WarpMax(x) : WarpSum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = lane < warps ? scratch[lane] : (kMax ? -INFINITY : 0.0f);
  x = kMax ? WarpMax(x) : WarpSum(x);
  __syncthreads();
  return x;
}

// 16 bytes of T.
template <typename T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T v[kSize];
};

// Four neighbours, rounded to the type; e4m3: limited to its range.
// Two bfloat16, the first in the low half.
__device__ __forceinline__ uint32_t PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ void Store4(float* to, const float4& v) {
  *reinterpret_cast<float4*>(to) = v;
}
__device__ __forceinline__ void Store4(__nv_bfloat16* to, const float4& v) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(v.x, v.y),
                       high = __floats2bfloat162_rn(v.z, v.w);
  uint2 packed;
  packed.x = reinterpret_cast<const uint32_t&>(low);
  packed.y = reinterpret_cast<const uint32_t&>(high);
  *reinterpret_cast<uint2*>(to) = packed;
}
__device__ __forceinline__ void Store4(__nv_fp8_e4m3* to, const float4& v) {
  *reinterpret_cast<uint32_t*>(to) = __nv_fp8x4_e4m3(v).__x;
}

__device__ __forceinline__ float Sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }
__device__ __forceinline__ float Swish(float x) { return x * Sigmoid(x); }

}  // namespace hgrn2::cuda
