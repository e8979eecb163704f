// Copies host tensors to the device through two pinned buffers, converting or quantising there.
#pragma once

#include <cuda_runtime_api.h>

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/backend/cuda_memory.h"
#include "engine/loader/weights.h"
#include "kernels/cuda/model_view.h"

namespace hgrn2 {

// Load-time only; not thread-safe. Destinations come from `memory`, staging is the uploader's own.
class WeightUploader {
 public:
  WeightUploader(DeviceMemory* memory, cudaStream_t stream) : memory_(memory), stream_(stream) {}
  ~WeightUploader();

  absl::Status Init();
  // The tensors' rows under each other, as one [rows, cols] matrix of `type`. kF8E4M3: with its
  // columns times col_factor, [cols] on the device, if there is one.
  absl::Status Matrix(std::span<const TensorView* const> parts, DType type, const char* what,
                      cuda::MatrixView* out, const float* col_factor = nullptr);
  absl::Status Floats(const std::vector<float>& values, const char* what, const float** out);
  // Waits for every copy.
  absl::Status Finish();
  // What enqueues work on uploaded matrices uses this.
  cudaStream_t stream() const { return stream_; }

 private:
  static constexpr size_t kStagingBytes = size_t{64} << 20;

  absl::Status Rows(const TensorView& part, int64_t cols, const cuda::MatrixView& out,
                    int64_t first_row, const float* col_factor);

  DeviceMemory* memory_;
  DeviceMemory staging_memory_;
  cudaStream_t stream_;
  void* host_[2] = {};
  void* device_[2] = {};
  cudaEvent_t done_[2] = {};
  int next_ = 0;
};

}  // namespace hgrn2
