// Backend on the CPUs of this machine.
#pragma once

#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cpu_model.h"
#include "engine/backend/cpu_slot_sampler.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/thread_pool.h"

namespace hgrn2 {

// Enqueue does the whole step on the calling thread and the pool; Collect hands out its result.
class CpuBackend : public Backend {
 public:
  CpuBackend(CpuWeights weights, BackendInfo info, std::string model_hash,
             std::unique_ptr<cpu::ThreadPool> pool);

  const BackendInfo& info() const override { return info_; }
  absl::Status ConfigureSlot(int32_t slot, const SlotSampling& sampling) override;
  absl::Status Enqueue(const StepBatch& batch) override;
  absl::Status Collect(StepResult* result) override;
  absl::Status CopyState(int32_t from_slot, int32_t to_slot) override;
  absl::StatusOr<StateBlob> SaveState(int32_t slot) override;
  absl::Status RestoreState(int32_t slot, const StateBlob& blob) override;
  absl::StatusOr<std::vector<float>> ForwardLogits(const StepBatch& batch) override;

 private:
  // What is wanted of one row's logits.
  struct LogitTask {
    const StepSequence* sequence = nullptr;
    int32_t row = 0;
    bool sample = false;
    int32_t target = -1;          // token to score, or -1
    TokenScore* score = nullptr;  // of the target
    TokenScore* sampled = nullptr;
  };

  void Forward(const StepBatch& batch);
  void PlanTasks(const StepBatch& batch);
  void RunTasks();
  void RunTask(const LogitTask& task, float* logits, cpu::SamplerScratch* scratch) const;
  // logprob, rank and the top_n best of the raw logits for score->token_id.
  void FillScore(const float* logits, int32_t top_n, cpu::SamplerScratch* scratch,
                 TokenScore* score) const;

  BackendInfo info_;
  const std::string model_hash_;
  const std::unique_ptr<cpu::ThreadPool> pool_;
  CpuModel model_;
  std::vector<CpuSlotSampler> slots_;
  std::vector<cpu::SamplerScratch> scratch_;  // one per thread
  cpu::AlignedBuffer<float> logits_;          // [kLogitRows, logits_ld]
  // Of the step in hand.
  std::vector<int32_t> tokens_;
  std::vector<CpuRun> runs_;
  std::vector<LogitTask> tasks_;
  std::vector<int32_t> task_rows_;
  StepResult result_;
  bool pending_ = false;
};

}  // namespace hgrn2
