// The CUDA backend: states, weights and sampling live on one device; a step is one small copy in,
// one enqueue (a graph for decode-only batches) and one event to wait for. See
// docs/kernels/cuda-step.md.
#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cuda_buffers.h"
#include "engine/backend/cuda_forward.h"
#include "engine/backend/cuda_model.h"
#include "engine/backend/cuda_persistent.h"
#include "engine/backend/cuda_step.h"

namespace hgrn2 {

class CudaBackend final : public Backend {
 public:
  static absl::StatusOr<std::unique_ptr<Backend>> Create(const ModelWeights& weights,
                                                         const BackendOptions& options);
  ~CudaBackend() override;

  const BackendInfo& info() const override { return info_; }
  absl::Status ConfigureSlot(int32_t slot, const SlotSampling& sampling) override;
  absl::Status Enqueue(const StepBatch& batch) override;
  absl::Status Collect(StepResult* result) override;
  absl::Status CopyState(int32_t from_slot, int32_t to_slot) override;
  absl::StatusOr<StateBlob> SaveState(int32_t slot) override;
  absl::Status RestoreState(int32_t slot, const StateBlob& blob) override;
  absl::StatusOr<std::vector<float>> ForwardLogits(const StepBatch& batch) override;

 private:
  struct Pending {
    std::vector<StepOutputs> outputs;
    std::vector<bool> with_logprob;  // per sequence: the sampled token's result is complete
    int parity = 0;
  };

  CudaBackend() = default;
  absl::Status Init(const ModelWeights& weights, const BackendOptions& options);
  absl::Status InitDevice(int32_t index, bool fp8_weights);
  absl::Status ChooseSizes(const ModelWeights& weights, const BackendOptions& options);
  absl::Status CaptureGraphs();
  absl::Status CaptureGraph(int32_t batch);
  absl::Status DecodeGraph(const StepShape& shape, int32_t batch);
  absl::Status LayersAndSampling(const StepShape& shape);
  // What `step` enqueues, instead of running it. The caller destroys it.
  absl::StatusOr<cudaGraph_t> Capture(const std::function<absl::Status()>& step);
  // plan_'s step of decodes beside prompts: by its shape's graph, once the shape has come often
  // enough to be captured.
  absl::Status MixedStep();
  // The least captured batch size that holds n sequences.
  int32_t GraphBatch(int32_t n) const;

  StepContext Context() const;
  absl::Status Upload(StepPlan& plan);
  void AdvanceAges(const StepBatch& batch);
  absl::Status FoldRing(int32_t slot);
  absl::Status ScatterState(int32_t slot, const std::vector<float>& values);
  void FillResult(const Pending& pending, StepResult* result) const;
  // Moves a slot's part of a slab of all layers between device and `host` [L][slot_bytes].
  absl::Status CopySlab(uint8_t* base, int32_t slot, int64_t slot_bytes, void* host, bool to_host);

  BackendInfo info_;
  std::string model_hash_;
  int device_ = 0;
  int compute_capability_ = 0;
  CudaSizes sizes_;
  cudaStream_t stream_ = nullptr;
  DeviceMemory memory_;
  std::unique_ptr<CudaModel> model_;
  CudaBuffers buffers_;
  std::unique_ptr<CudaForward> forward_;
  std::unique_ptr<CudaPersistentDecode> persistent_;  // null where it cannot serve the model
  std::map<int32_t, cudaGraphExec_t> graphs_;         // by batch
  struct MixedGraph {
    int32_t seen = 0;
    cudaGraphExec_t exec = nullptr;
  };
  std::map<MixedGraphKey, MixedGraph> mixed_graphs_;
  int32_t num_mixed_graphs_ = 0;  // captured, or given up

  StepPlan plan_;                     // of the step being enqueued; kept for its memory
  std::vector<uint8_t> last_upload_;  // what buffers_.step_device holds
  std::vector<int32_t> ages_;         // [slots], buffers_.age as it will be after the pending steps
  std::vector<bool> flags_dirty_;     // [slots] token_flags has non-zero entries
  std::vector<int32_t> logprobs_;     // [slots]
  uint32_t steps_ = 0;
  cudaEvent_t begin_[2] = {}, end_[2] = {}, uploaded_[2] = {};
  std::deque<Pending> pending_;
};

}  // namespace hgrn2
