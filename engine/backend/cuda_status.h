// CUDA errors as Status.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>

#include "base/status.h"

namespace hgrn2 {

// RESOURCE_EXHAUSTED for out of memory, else INTERNAL; `what` names the operation.
inline absl::Status CudaStatus(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return MakeStatus(error == cudaErrorMemoryAllocation ? absl::StatusCode::kResourceExhausted
                                                       : absl::StatusCode::kInternal,
                    "{}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

// The same for kernels/cuda/gemm, which says what failed in words.
inline absl::Status GemmStatus(const std::string& error) {
  if (error.empty()) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kInternal, "{}", error);
}

}  // namespace hgrn2

#define CUDA_RETURN_IF_ERROR(expr) RETURN_IF_ERROR(::hgrn2::CudaStatus((expr), #expr))
