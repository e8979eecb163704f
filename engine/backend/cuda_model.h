// A model's weights in device memory, packed for the fused products: q, f and i as one matrix, gate
// and up as one; optionally quantised to FP8 (e4m3, one scale per output channel).
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/cuda_memory.h"
#include "engine/loader/weights.h"
#include "kernels/cuda/model_view.h"

namespace hgrn2 {

// Immutable after Create. Thread-safe.
class CudaModel {
 public:
  // `activation`: kF32 or kBF16. fp8: the layers' matrices (not embeddings and head) are e4m3;
  // REQUIRES kBF16 then. Blocks until the weights are on the device.
  static absl::StatusOr<std::unique_ptr<CudaModel>> Create(const ModelWeights& weights,
                                                           DType activation, bool fp8,
                                                           cudaStream_t stream);
  // What Create will allocate.
  static int64_t WeightBytes(const ModelConfig& config, DType activation, bool fp8);

  const cuda::ModelView& view() const { return view_; }
  int64_t weight_bytes() const { return memory_.device_bytes(); }

 private:
  CudaModel() = default;

  DeviceMemory memory_;
  std::vector<cuda::LayerView> layers_;
  cuda::ModelView view_;
};

}  // namespace hgrn2
