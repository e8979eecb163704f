#include "engine/backend/cuda_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "engine/backend/cuda_status.h"

namespace hgrn2 {

DeviceMemory::~DeviceMemory() {
  for (void* p : device_) cudaFree(p);
  for (void* p : host_) cudaFreeHost(p);
}

absl::StatusOr<void*> DeviceMemory::Allocate(size_t bytes, const char* what) {
  void* p = nullptr;
  if (const cudaError_t e = cudaMalloc(&p, std::max<size_t>(bytes, 256)); e != cudaSuccess) {
    cudaGetLastError();  // not sticky: the next call starts clean
    return CudaStatus(e, fmt::format("allocating {} bytes of device memory for {}", bytes, what));
  }
  device_.push_back(p);
  device_bytes_ += static_cast<int64_t>(bytes);
  return p;
}

absl::StatusOr<void*> DeviceMemory::AllocateHost(size_t bytes, const char* what) {
  void* p = nullptr;
  if (const cudaError_t e = cudaHostAlloc(&p, std::max<size_t>(bytes, 256), cudaHostAllocMapped);
      e != cudaSuccess) {
    cudaGetLastError();
    return CudaStatus(e, fmt::format("allocating {} bytes of pinned memory for {}", bytes, what));
  }
  host_.push_back(p);
  return p;
}

}  // namespace hgrn2
