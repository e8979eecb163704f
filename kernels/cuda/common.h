// Host-side basics of the CUDA kernels: launch helper with programmatic dependent launch (PDL).
//
// Conventions of every launcher in kernels/cuda:
//  * takes a params struct of device pointers and a stream; never allocates, never synchronises;
//  * returns the launch's cudaError_t (cudaErrorInvalidValue for a shape it does not support);
//  * every kernel begins with GridDependencyWait() (common.cuh) before it touches memory that an
//    earlier kernel wrote, and may so be launched with PDL behind any other kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace hgrn2::cuda {

// Element type of activations and weights in the products. kF16 is not served: bfloat16 has the
// range that residual streams need.
using ActivationType = DType;  // kF32 or kBF16

// The greatest number in FP8 (e4m3), and what rounding to it can add to a vector's norm: 1 / 16.
inline constexpr float kMaxE4M3 = 448.0f, kE4M3Rounding = 1.07f;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Launches `kernel` so that its blocks may become resident before the kernel ahead of it in
// `stream` has finished (sm_90; ignored on older devices by the driver: the attribute is only set
// when `overlap` is true). The kernel must call GridDependencyWait() first.
template <typename... Params, typename... Args>
cudaError_t Launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, bool overlap, Args&&... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

// Of the current device.
inline cudaError_t DeviceAttribute(cudaDeviceAttr attribute, int* value) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error == cudaSuccess ? cudaDeviceGetAttribute(value, attribute, device) : error;
}

// Lets launches of `kernel`, which has no static shared memory, ask for as much dynamic shared
// memory as the device has. Always that limit and never a launch's own need: the attribute is the
// kernel's, and another thread may be about to launch it with more.
template <typename... Params>
cudaError_t AllowMostSharedMemory(void (*kernel)(Params...)) {
  int limit = 0;
  cudaError_t error = DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, &limit);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
  return error;
}

}  // namespace hgrn2::cuda

#define HGRN2_CUDA_RETURN_IF_ERROR(expr)                       \
  do {                                                         \
    if (cudaError_t e_ = (expr); e_ != cudaSuccess) return e_; \
  } while (false)
