#include "engine/backend/cpu_backend.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/host.h"
#include "base/status.h"
#include "engine/backend/step_checks.h"
#include "kernels/cpu/cpu_info.h"

namespace hgrn2 {
namespace {

// Rows whose logits are held at once: bounds the memory of scoring long prompts.
constexpr int kLogitRows = 64;
// A prefill of this many tokens takes about as long as the latency that running streams can bear,
// and more would not make the products faster.
constexpr int kDefaultBatchedTokens = 256;
constexpr int kMaxBatchedTokens = 8192;
// Part of the available memory that weights and states may take.
constexpr double kMemoryUtilization = 0.9;

double Seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

CpuBackend::CpuBackend(CpuWeights weights, BackendInfo info, std::string model_hash,
                       std::unique_ptr<cpu::ThreadPool> pool)
    : info_(std::move(info)),
      model_hash_(std::move(model_hash)),
      pool_(std::move(pool)),
      model_(std::move(weights), info_.state_dtype, info_.num_slots, info_.max_batched_tokens,
             pool_.get()),
      slots_(static_cast<size_t>(info_.num_slots)) {
  for (int i = 0; i < pool_->num_threads(); ++i) {
    scratch_.emplace_back(model_.weights().config.vocab_size);
  }
  logits_ = cpu::AlignedBuffer<float>(kLogitRows * static_cast<size_t>(model_.logits_ld()));
}

absl::Status CpuBackend::ConfigureSlot(int32_t slot, const SlotSampling& sampling) {
  RETURN_IF_ERROR(CheckSlot(slot, info_.num_slots));
  slots_[slot].Configure(sampling);
  return absl::OkStatus();
}

void CpuBackend::Forward(const StepBatch& batch) {
  tokens_.clear();
  runs_.clear();
  for (const StepSequence& s : batch.sequences) {
    runs_.push_back({s.slot, static_cast<int>(tokens_.size()), s.num_tokens, s.reset_state});
    if (s.token_on_device) {
      tokens_.push_back(slots_[s.slot].last_token());
      continue;
    }
    const auto first = batch.tokens.begin() + s.token_begin;
    tokens_.insert(tokens_.end(), first, first + s.num_tokens);
  }
  for (const int32_t token : tokens_) {
    HGRN2_CHECK(token >= 0 && token < model_.weights().config.vocab_size, "token id");
  }
  model_.Forward(tokens_, runs_);
}

void CpuBackend::PlanTasks(const StepBatch& batch) {
  tasks_.clear();
  result_ = StepResult();
  result_.sequences.resize(batch.sequences.size());
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& s = batch.sequences[i];
    SequenceResult& result = result_.sequences[i];
    const bool scores = s.score && !batch.score_targets.empty();
    const auto target = [&](int t) { return scores ? batch.score_targets[s.token_begin + t] : -1; };
    int num_scores = 0;
    for (int t = 0; t < s.num_tokens; ++t) num_scores += target(t) >= 0;
    result.scores.resize(static_cast<size_t>(num_scores));
    TokenScore* next_score = result.scores.data();
    for (int t = 0; t < s.num_tokens; ++t) {
      LogitTask task;
      task.sequence = &s;
      task.row = runs_[i].row + t;
      task.target = target(t);
      if (task.target >= 0) task.score = next_score++;
      task.sample = s.sample && t == s.num_tokens - 1;
      task.sampled = &result.sampled;
      if (task.sample || task.target >= 0) tasks_.push_back(task);
    }
  }
}

void CpuBackend::RunTasks() {
  const int64_t ld = model_.logits_ld();
  for (size_t begin = 0; begin < tasks_.size(); begin += kLogitRows) {
    const size_t count = std::min<size_t>(kLogitRows, tasks_.size() - begin);
    task_rows_.clear();
    for (size_t i = begin; i < begin + count; ++i) task_rows_.push_back(tasks_[i].row);
    model_.Logits(task_rows_, logits_.data());
    pool_->Run(static_cast<int>(count), [&](cpu::ThreadPool::Worker worker) {
      int i;
      while (worker.Next(&i)) {
        float* const logits = logits_.data() + i * ld;
        cpu::PadLogits(logits, model_.weights().config.vocab_size, static_cast<int>(ld));
        RunTask(tasks_[begin + i], logits, &scratch_[worker.index()]);
      }
    });
  }
}

void CpuBackend::FillScore(const float* logits, int32_t top_n, cpu::SamplerScratch* scratch,
                           TokenScore* score) const {
  const int vocab = model_.weights().config.vocab_size;
  const float log_sum = cpu::LogSumExp(logits, vocab);
  const float logit = logits[score->token_id];
  score->logprob = logit - log_sum;
  score->rank = 1 + cpu::CountGreater(logits, vocab, logit);
  const int n = std::min(top_n, vocab);
  if (n <= 0) return;
  std::vector<int32_t> ids(static_cast<size_t>(n));
  ids.resize(static_cast<size_t>(cpu::TopIds(logits, vocab, n, scratch, ids.data())));
  for (const int32_t id : ids) score->top.push_back({id, logits[id] - log_sum});
}

void CpuBackend::RunTask(const LogitTask& task, float* logits, cpu::SamplerScratch* scratch) const {
  const StepSequence& s = *task.sequence;
  if (task.target >= 0) {
    task.score->token_id = task.target;
    FillScore(logits, s.score_top_n, scratch, task.score);
  }
  if (!task.sample) return;
  const CpuSlotSampler& slot = slots_[s.slot];
  task.sampled->token_id =
      slot.Sample(logits, model_.weights().config.vocab_size, s.banned_token_ids, scratch);
  if (slot.scalars().logprobs >= 0) {
    FillScore(logits, slot.scalars().logprobs, scratch, task.sampled);
  }
}

absl::Status CpuBackend::Enqueue(const StepBatch& batch) {
  HGRN2_CHECK(!pending_, "a step is pending");
  RETURN_IF_ERROR(CheckBatch(batch, info_.num_slots, info_.max_batched_tokens));
  const auto start = std::chrono::steady_clock::now();
  Forward(batch);
  PlanTasks(batch);
  RunTasks();
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& s = batch.sequences[i];
    if (s.sample) slots_[s.slot].Append(result_.sequences[i].sampled.token_id);
  }
  result_.device_seconds = Seconds(std::chrono::steady_clock::now() - start);
  pending_ = true;
  return absl::OkStatus();
}

absl::Status CpuBackend::Collect(StepResult* result) {
  HGRN2_CHECK(pending_, "no step is pending");
  *result = std::move(result_);
  pending_ = false;
  return absl::OkStatus();
}

absl::Status CpuBackend::CopyState(int32_t from_slot, int32_t to_slot) {
  RETURN_IF_ERROR(CheckSlot(from_slot, info_.num_slots));
  RETURN_IF_ERROR(CheckSlot(to_slot, info_.num_slots));
  model_.states().Copy(from_slot, to_slot);
  return absl::OkStatus();
}

absl::StatusOr<StateBlob> CpuBackend::SaveState(int32_t slot) {
  RETURN_IF_ERROR(CheckSlot(slot, info_.num_slots));
  StateBlob blob;
  blob.model_hash = model_hash_;
  model_.states().Save(slot, &blob);
  return blob;
}

absl::Status CpuBackend::RestoreState(int32_t slot, const StateBlob& blob) {
  RETURN_IF_ERROR(CheckSlot(slot, info_.num_slots));
  if (blob.model_hash != model_hash_) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "the state is of model {}, this server runs {}", blob.model_hash,
                      model_hash_);
  }
  return model_.states().Restore(slot, blob);
}

absl::StatusOr<std::vector<float>> CpuBackend::ForwardLogits(const StepBatch& batch) {
  HGRN2_CHECK(!pending_, "a step is pending");
  RETURN_IF_ERROR(CheckBatch(batch, info_.num_slots, info_.max_batched_tokens));
  Forward(batch);
  const int vocab = model_.weights().config.vocab_size;
  std::vector<float> out(tokens_.size() * static_cast<size_t>(vocab));
  // Rows of the batch follow its sequences; the result follows batch.tokens.
  for (size_t i = 0; i < runs_.size(); ++i) {
    const int begin = batch.sequences[i].token_begin;
    for (int t = 0; t < runs_[i].tokens; t += kLogitRows) {
      const int count = std::min(kLogitRows, runs_[i].tokens - t);
      task_rows_.clear();
      for (int r = 0; r < count; ++r) task_rows_.push_back(runs_[i].row + t + r);
      model_.Logits(task_rows_, logits_.data());
      for (int r = 0; r < count; ++r) {
        std::copy_n(logits_.data() + r * model_.logits_ld(), vocab,
                    out.data() + (begin + t + r) * static_cast<size_t>(vocab));
      }
    }
  }
  return out;
}

namespace {

absl::StatusOr<DType> ChooseDType(const ModelWeights& weights, const BackendOptions& options) {
  if (!options.dtype) {
    // float16 has no fast products on CPUs; float32 holds its values exactly.
    return weights.layers[0].q_proj.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  }
  if (*options.dtype == DType::kF32 || *options.dtype == DType::kBF16) return *options.dtype;
  return InvalidArgument("dtype", "the CPU backend computes in float32 or bfloat16, not {}",
                         Name(*options.dtype));
}

absl::StatusOr<DType> ChooseStateDType(DType dtype, const BackendOptions& options) {
  // With bfloat16 products the state's rounding to float16 is lost in theirs, and at large batches
  // its bytes are most of a step's.
  if (!options.state_dtype) return dtype == DType::kBF16 ? DType::kF16 : DType::kF32;
  if (*options.state_dtype != DType::kF8E4M3) return *options.state_dtype;
  return InvalidArgument("state_dtype",
                         "the CPU backend keeps states in float32, float16 or bfloat16, not {}",
                         Name(*options.state_dtype));
}

// Slots that fit beside the weights; the options' if memory is unknown.
absl::StatusOr<int32_t> FitSlots(const BackendInfo& info, int32_t wanted) {
  const int64_t available = AvailableMemory();
  if (available == 0) return wanted;
  const auto budget = static_cast<int64_t>(static_cast<double>(available) * kMemoryUtilization);
  const int64_t fit = (budget - info.weight_bytes) / info.state_bytes_per_sequence;
  if (fit >= 1) return static_cast<int32_t>(std::min<int64_t>(wanted, fit));
  return MakeStatus(absl::StatusCode::kResourceExhausted,
                    "the model needs {} bytes of weights and {} per sequence, {} of the {} bytes "
                    "available may be used",
                    info.weight_bytes, info.state_bytes_per_sequence, budget, available);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const ModelWeights& weights,
                                                        const BackendOptions& options) {
  BackendInfo info;
  ASSIGN_OR_RETURN(info.dtype, ChooseDType(weights, options));
  ASSIGN_OR_RETURN(info.state_dtype, ChooseStateDType(info.dtype, options));
  const int threads = options.num_threads > 0 ? options.num_threads : NumUsableCpus();
  info.device = fmt::format("cpu ({}, {} threads)", cpu::IsaName(), threads);
  info.weight_bytes = CpuWeightBytes(weights.config, info.dtype, weights.embeddings.dtype);
  info.state_bytes_per_sequence = CpuStatePool::BytesPerSlot(weights.config, info.state_dtype);
  ASSIGN_OR_RETURN(info.num_slots, FitSlots(info, std::max(1, options.num_slots)));
  info.max_batched_tokens = options.max_batched_tokens > 0
                                ? std::min(options.max_batched_tokens, kMaxBatchedTokens)
                                : std::max(kDefaultBatchedTokens, info.num_slots);
  info.pipeline_depth = 1;
  auto pool = std::make_unique<cpu::ThreadPool>(threads);
  CpuWeights packed = PackCpuWeights(weights, info.dtype, pool.get());
  return std::make_unique<CpuBackend>(std::move(packed), std::move(info), weights.hash,
                                      std::move(pool));
}

}  // namespace hgrn2
