// The persistent whole-model decode kernel (kernels/cuda/persistent) on a backend's buffers.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "absl/status/statusor.h"
#include "engine/backend/cuda_buffers.h"
#include "engine/backend/cuda_memory.h"
#include "engine/backend/cuda_model.h"
#include "engine/backend/cuda_step.h"
#include "kernels/cuda/persistent/decode.h"

namespace hgrn2 {

class CudaPersistentDecode {
 public:
  // What Create will allocate beside the model's memory: packed weights and workspace. 0 if the
  // kernel does not support the model or the device.
  static int64_t Bytes(const CudaSizes& sizes, int compute_capability);

  // Null if the kernel does not support the model or the device; *why then says what stands in the
  // way. References outlive the result.
  static absl::StatusOr<std::unique_ptr<CudaPersistentDecode>> Create(
      const CudaModel& model, const CudaSizes& sizes, CudaBuffers& buffers, int compute_capability,
      int multiprocessors, cudaStream_t stream, const char** why);

  // Batches up to this many sequences are faster here than through the general path.
  int32_t max_batch() const { return max_batch_; }

  int64_t device_bytes() const { return memory_.device_bytes(); }

  // From token ids to buffers.logits [batch][vocab], ages included. `shape` as for
  // CudaForward::Layers; batch <= its padded tokens.
  absl::Status Run(const StepShape& shape, int32_t batch, cudaStream_t stream);

 private:
  CudaPersistentDecode(const CudaModel& model, const CudaSizes& sizes, CudaBuffers& buffers)
      : model_(model.view()), sizes_(sizes), buffers_(buffers) {}
  absl::Status Init(int multiprocessors, cudaStream_t stream);

  const cuda::ModelView& model_;
  const CudaSizes& sizes_;
  CudaBuffers& buffers_;
  DeviceMemory memory_;
  cuda::persistent::DecodeParams params_;
  int32_t max_batch_ = 8;
};

}  // namespace hgrn2
