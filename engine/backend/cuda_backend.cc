#include "engine/backend/cuda_backend.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/log.h"
#include "engine/backend/cuda_status.h"
#include "engine/backend/step_checks.h"

namespace hgrn2 {
namespace {

constexpr int32_t kDefaultMaxTokens = 16384;
constexpr int32_t kPipelineDepth = 2;
// A shape of decodes beside prompts is captured when it comes for the third time: capturing takes
// the host some milliseconds, and by then every kernel is loaded and every algorithm chosen.
constexpr int32_t kSeenBeforeCapture = 2;
constexpr int32_t kMaxMixedGraphs = 64;
// bench/RESULTS.md has the measurements: 256 decodes take about a quarter longer beside so many.
constexpr int32_t kPrefillTokensBesideDecodes = 128;
// Left to the driver, cuBLASLt's kernels and graphs.
constexpr int64_t kReserveBytes = int64_t{512} << 20;

absl::StatusOr<DType> ChooseActivation(const ModelWeights& weights, const BackendOptions& options) {
  const DType checkpoint = weights.embeddings.dtype;
  DType type = options.dtype.value_or(checkpoint == DType::kF32 ? DType::kF32 : DType::kBF16);
  if (type != DType::kF32 && type != DType::kBF16) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "dtype {} is not supported on CUDA: use float32 or bfloat16", Name(type));
  }
  if (options.fp8_weights && !options.dtype) type = DType::kBF16;
  if (options.fp8_weights && type != DType::kBF16) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "quantization fp8 needs dtype bfloat16, not {}", Name(type));
  }
  return type;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const ModelWeights& weights,
                                                         const BackendOptions& options) {
  return CudaBackend::Create(weights, options);
}

absl::StatusOr<std::unique_ptr<Backend>> CudaBackend::Create(const ModelWeights& weights,
                                                             const BackendOptions& options) {
  std::unique_ptr<CudaBackend> backend(new CudaBackend);
  RETURN_IF_ERROR(backend->Init(weights, options));
  return backend;
}

CudaBackend::~CudaBackend() {
  if (!stream_) return;
  cudaSetDevice(device_);
  cudaStreamSynchronize(stream_);
  for (auto& [batch, graph] : graphs_) cudaGraphExecDestroy(graph);
  for (auto& [key, graph] : mixed_graphs_) {
    if (graph.exec) cudaGraphExecDestroy(graph.exec);
  }
  for (cudaEvent_t event : {begin_[0], begin_[1], end_[0], end_[1], uploaded_[0], uploaded_[1]}) {
    if (event) cudaEventDestroy(event);
  }
  cudaStreamDestroy(stream_);
}

absl::Status CudaBackend::Init(const ModelWeights& weights, const BackendOptions& options) {
  RETURN_IF_ERROR(InitDevice(options.device_index, options.fp8_weights));
  RETURN_IF_ERROR(ChooseSizes(weights, options));
  ASSIGN_OR_RETURN(model_,
                   CudaModel::Create(weights, sizes_.activation, sizes_.fp8_weights, stream_));
  RETURN_IF_ERROR(buffers_.Allocate(sizes_, &memory_, stream_));
  forward_ = std::make_unique<CudaForward>(*model_, sizes_, buffers_, compute_capability_ >= 90);
  RETURN_IF_ERROR(forward_->Init());
  int multiprocessors = 0;
  CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device_));
  const char* why = "";
  ASSIGN_OR_RETURN(persistent_,
                   CudaPersistentDecode::Create(*model_, sizes_, buffers_, compute_capability_,
                                                multiprocessors, stream_, &why));
  if (!persistent_) LOG_INFO("{}: no persistent decode kernel: {}", info_.device, why);

  model_hash_ = weights.hash;
  ages_.assign(sizes_.num_slots, 0);
  flags_dirty_.assign(sizes_.num_slots, false);
  logprobs_.assign(sizes_.num_slots, -1);
  info_.dtype = sizes_.activation;
  info_.state_dtype = sizes_.state_dtype;
  info_.weight_bytes =
      model_->weight_bytes() + (persistent_ != nullptr ? persistent_->device_bytes() : 0);
  info_.state_bytes_per_sequence = sizes_.StateBytesPerSlot();
  info_.num_slots = sizes_.num_slots;
  info_.max_batched_tokens = sizes_.max_tokens;
  info_.pipeline_depth = kPipelineDepth;
  info_.state_replay = sizes_.ring_length;
  info_.prefill_tokens_beside_decodes = kPrefillTokensBesideDecodes;
  return CaptureGraphs();
}

absl::Status CudaBackend::InitDevice(int32_t index, bool fp8_weights) {
  int count = 0;
  if (const cudaError_t e = cudaGetDeviceCount(&count); e != cudaSuccess || count == 0) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition, "no usable CUDA device: {}",
                      e == cudaSuccess ? "none found" : cudaGetErrorString(e));
  }
  if (index < 0 || index >= count) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "device cuda:{} does not exist: this machine has {}", index, count);
  }
  device_ = index;
  CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
  cudaDeviceProp properties;
  CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, device_));
  compute_capability_ = properties.major * 10 + properties.minor;
  info_.device = fmt::format("cuda:{} ({})", device_, properties.name);
  if (compute_capability_ < 80) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "{} has compute capability {}.{}; 8.0 is the least", info_.device,
                      properties.major, properties.minor);
  }
  if (fp8_weights && compute_capability_ != 90) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "quantization fp8 needs a Hopper GPU (compute capability 9.0); {} has {}.{}",
                      info_.device, properties.major, properties.minor);
  }
  CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  for (int i = 0; i < 2; ++i) {
    CUDA_RETURN_IF_ERROR(cudaEventCreate(&begin_[i]));
    CUDA_RETURN_IF_ERROR(cudaEventCreate(&end_[i]));
    CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&uploaded_[i], cudaEventDisableTiming));
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::ChooseSizes(const ModelWeights& weights, const BackendOptions& options) {
  const ModelConfig& c = weights.config;
  const int32_t mlp_multiple = options.fp8_weights ? 16 : 8;
  if (c.hidden_size % 16 != 0 || c.hidden_size > 16384 || c.head_dim % 16 != 0 ||
      c.head_dim > 256 || c.intermediate_size % mlp_multiple != 0) {
    return MakeStatus(
        absl::StatusCode::kInvalidArgument,
        "the CUDA backend needs hidden_size in multiples of 16 up to 16384, heads of 16, "
        "32 ... 256 and intermediate_size in multiples of {}; the model has {}, {} and {}",
        mlp_multiple, c.hidden_size, c.head_dim, c.intermediate_size);
  }
  if (c.conv_size == 1 || c.conv_size > cuda::kMaxConvSize) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "the CUDA backend needs a conv_size of 2 to {}, not {}", cuda::kMaxConvSize,
                      c.conv_size);
  }
  if (options.state_replay < 0 || options.state_replay > cuda::kMaxReplay) {
    return InvalidArgument("state-replay", "must be in [0, {}], got {}", cuda::kMaxReplay,
                           options.state_replay);
  }
  sizes_.config = c;
  ASSIGN_OR_RETURN(sizes_.activation, ChooseActivation(weights, options));
  sizes_.state_dtype = options.state_dtype.value_or(DType::kF16);
  sizes_.fp8_weights = options.fp8_weights;
  sizes_.ring_length =
      options.state_replay > 0 ? options.state_replay : DefaultStateReplay(sizes_.state_dtype);
  sizes_.max_tokens =
      options.max_batched_tokens > 0 ? options.max_batched_tokens : kDefaultMaxTokens;
  sizes_.num_slots = std::max(1, options.num_slots);
  sizes_.max_tokens = std::max(sizes_.max_tokens, 8);

  size_t free = 0, total = 0;
  CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free, &total));
  const MemoryBudget budget = {static_cast<int64_t>(total), options.memory_utilization,
                               static_cast<int64_t>(total - free), kReserveBytes};
  const int64_t weight_bytes = CudaModel::WeightBytes(c, sizes_.activation, sizes_.fp8_weights) +
                               CudaPersistentDecode::Bytes(sizes_, compute_capability_);
  ASSIGN_OR_RETURN(sizes_.num_slots, FitSlots(sizes_, weight_bytes, budget));
  if (sizes_.num_slots < options.num_slots) {
    LOG_WARNING(
        "{}: {} slots fit beside {:.2f} GiB of weights and {:.2f} GiB of workspace, not "
        "the {} asked for ({:.2f} MiB each)",
        info_.device, sizes_.num_slots, weight_bytes / 1073741824.0,
        sizes_.WorkspaceBytes() / 1073741824.0, options.num_slots,
        sizes_.BytesPerSlot() / 1048576.0);
  }
  return absl::OkStatus();
}

// ---- steps --------------------------------------------------------------------------------------

StepContext CudaBackend::Context() const {
  return {sizes_.config.head_dim, sizes_.activation, sizes_.state_dtype, ages_, 0};
}

int32_t CudaBackend::GraphBatch(int32_t n) const {
  const auto it = graphs_.lower_bound(n);
  return it == graphs_.end() ? 0 : it->first;
}

absl::Status CudaBackend::CaptureGraphs() {
  std::vector<int32_t> batches;
  const int32_t persistent = persistent_ ? persistent_->max_batch() : 0;
  for (int32_t n = 1; n <= std::min(persistent, 8); ++n) batches.push_back(n);
  for (int64_t n = 1; n <= sizes_.num_slots + 255; n = batches.back() + 1) {
    const int32_t bucket = static_cast<int32_t>(cuda::GemmTokenBucket(n));
    if (batches.empty() || bucket > batches.back()) batches.push_back(bucket);
    if (batches.back() >= sizes_.num_slots) break;
  }
  for (const int32_t batch : batches) RETURN_IF_ERROR(CaptureGraph(batch));
  CUDA_RETURN_IF_ERROR(cudaMemsetAsync(buffers_.step, 0, sizeof(uint32_t), stream_));
  steps_ = 0;
  return CudaStatus(cudaStreamSynchronize(stream_), "warm-up");
}

absl::Status CudaBackend::DecodeGraph(const StepShape& shape, int32_t batch) {
  if (persistent_ && batch <= persistent_->max_batch()) {
    RETURN_IF_ERROR(persistent_->Run(shape, batch, stream_));
    return forward_->SampleLogits(shape, batch, stream_);
  }
  return LayersAndSampling(shape);
}

absl::Status CudaBackend::LayersAndSampling(const StepShape& shape) {
  RETURN_IF_ERROR(forward_->Layers(shape, stream_));
  return forward_->SampleRows(shape, stream_);
}

absl::StatusOr<cudaGraph_t> CudaBackend::Capture(const std::function<absl::Status()>& step) {
  CUDA_RETURN_IF_ERROR(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  const absl::Status status = step();
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  RETURN_IF_ERROR(status);
  CUDA_RETURN_IF_ERROR(ended);
  return graph;
}

absl::Status CudaBackend::MixedStep() {
  MixedGraph& graph = mixed_graphs_[MixedGraphKeyOf(plan_.shape)];
  const bool captures = graph.exec == nullptr && graph.seen >= kSeenBeforeCapture &&
                        num_mixed_graphs_ < kMaxMixedGraphs;
  ++graph.seen;
  if (captures) {
    ++num_mixed_graphs_;
    ASSIGN_OR_RETURN(const cudaGraph_t captured,
                     Capture([&] { return LayersAndSampling(plan_.shape); }));
    const cudaError_t instantiated = cudaGraphInstantiate(&graph.exec, captured, 0);
    cudaGraphDestroy(captured);
    if (instantiated != cudaSuccess) {
      graph.exec = nullptr;
      cudaGetLastError();
      LOG_WARNING("{}: no graph for {} decodes beside prompts: {}", info_.device,
                  plan_.shape.decode_slots.count, cudaGetErrorString(instantiated));
    }
  }
  if (graph.exec != nullptr) {
    return CudaStatus(cudaGraphLaunch(graph.exec, stream_), "launching a graph");
  }
  return LayersAndSampling(plan_.shape);
}

// Runs a step of padding once, so that every kernel is loaded and every algorithm chosen, then
// captures the same step.
absl::Status CudaBackend::CaptureGraph(int32_t batch) {
  StepContext context = Context();
  context.min_tokens = batch;
  BuildStep(StepBatch(), context, false, &plan_);
  RETURN_IF_ERROR(Upload(plan_));
  RETURN_IF_ERROR(DecodeGraph(plan_.shape, batch));
  CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_));
  ASSIGN_OR_RETURN(const cudaGraph_t graph,
                   Capture([&] { return DecodeGraph(plan_.shape, batch); }));
  cudaGraphExec_t exec = nullptr;
  const cudaError_t instantiated = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  CUDA_RETURN_IF_ERROR(instantiated);
  graphs_[batch] = exec;
  return CudaStatus(cudaGraphUpload(exec, stream_), "uploading a graph");
}

absl::Status CudaBackend::Upload(StepPlan& plan) {
  if (plan.bytes == last_upload_) return absl::OkStatus();  // steady decode: nothing changed
  if (plan.bytes.size() > buffers_.step_bytes) {
    return MakeStatus(absl::StatusCode::kInternal,
                      "a step's arrays take {} bytes, more than the {} there are: too many banned "
                      "tokens in one step",
                      plan.bytes.size(), buffers_.step_bytes);
  }
  const int i = steps_ & 1;
  CUDA_RETURN_IF_ERROR(cudaEventSynchronize(uploaded_[i]));
  std::memcpy(buffers_.step_host[i], plan.bytes.data(), plan.bytes.size());
  CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(buffers_.step_device, buffers_.step_host[i],
                                       plan.bytes.size(), cudaMemcpyHostToDevice, stream_));
  CUDA_RETURN_IF_ERROR(cudaEventRecord(uploaded_[i], stream_));
  last_upload_.swap(plan.bytes);
  return absl::OkStatus();
}

void CudaBackend::AdvanceAges(const StepBatch& batch) {
  if (sizes_.ring_length == 1) return;
  for (const StepSequence& s : batch.sequences) {
    ages_[s.slot] = s.num_tokens > 1 || s.reset_state ? 0 : ages_[s.slot] + 1;
  }
}

absl::Status CudaBackend::Enqueue(const StepBatch& batch) {
  HGRN2_CHECK(pending_.size() < kPipelineDepth);
  CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
  RETURN_IF_ERROR(CheckBatch(batch, sizes_.num_slots, sizes_.max_tokens));
  const int32_t n = static_cast<int32_t>(batch.sequences.size());
  BuildStep(batch, Context(), false, &plan_);
  RETURN_IF_ERROR(Upload(plan_));
  ++steps_;  // the device counts too, at the beginning of the step
  const int parity = steps_ & 1;
  CUDA_RETURN_IF_ERROR(cudaEventRecord(begin_[parity], stream_));
  const int32_t graph = plan_.shape.graphable ? GraphBatch(n) : 0;
  if (graph > 0) {
    CUDA_RETURN_IF_ERROR(cudaGraphLaunch(graphs_.at(graph), stream_));
  } else if (plan_.shape.mixed_graphable) {
    RETURN_IF_ERROR(MixedStep());
  } else {
    RETURN_IF_ERROR(LayersAndSampling(plan_.shape));
  }
  CUDA_RETURN_IF_ERROR(cudaEventRecord(end_[parity], stream_));
  AdvanceAges(batch);
  Pending pending;
  for (const StepSequence& s : batch.sequences) {
    pending.with_logprob.push_back(logprobs_[s.slot] >= 0);
  }
  pending.outputs = std::move(plan_.outputs);
  pending.parity = parity;
  pending_.push_back(std::move(pending));
  return absl::OkStatus();
}

namespace {
TokenScore ToScore(const cuda::TokenResult& r) {
  TokenScore score;
  score.token_id = r.token, score.logprob = r.logprob, score.rank = r.rank;
  score.top.reserve(r.num_top);
  for (int i = 0; i < r.num_top; ++i) score.top.push_back({r.top_token[i], r.top_logprob[i]});
  return score;
}
}  // namespace

void CudaBackend::FillResult(const Pending& pending, StepResult* result) const {
  const cuda::TokenResult* all = buffers_.results[pending.parity];
  result->sequences.resize(pending.outputs.size());
  for (size_t i = 0; i < pending.outputs.size(); ++i) {
    const StepOutputs& from = pending.outputs[i];
    SequenceResult& to = result->sequences[i];
    to.sampled = TokenScore();
    to.scores.clear();
    if (from.sampled >= 0 && pending.with_logprob[i]) {
      to.sampled = ToScore(all[from.sampled]);
    } else if (from.sampled >= 0) {
      to.sampled.token_id = all[from.sampled].token;
    }
    for (int32_t j = 0; j < from.num_scores; ++j)
      to.scores.push_back(ToScore(all[from.scores + j]));
  }
}

absl::Status CudaBackend::Collect(StepResult* result) {
  HGRN2_CHECK(!pending_.empty());
  CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
  const Pending pending = std::move(pending_.front());
  pending_.pop_front();
  const int parity = pending.parity;
  CUDA_RETURN_IF_ERROR(cudaEventSynchronize(end_[parity]));
  float milliseconds = 0;
  CUDA_RETURN_IF_ERROR(cudaEventElapsedTime(&milliseconds, begin_[parity], end_[parity]));
  FillResult(pending, result);
  result->device_seconds = milliseconds * 1e-3;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> CudaBackend::ForwardLogits(const StepBatch& batch) {
  HGRN2_CHECK(pending_.empty());
  CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
  RETURN_IF_ERROR(CheckBatch(batch, sizes_.num_slots, sizes_.max_tokens));
  BuildStep(batch, Context(), true, &plan_);
  RETURN_IF_ERROR(Upload(plan_));
  ++steps_;
  RETURN_IF_ERROR(forward_->Layers(plan_.shape, stream_));
  const int64_t vocab = sizes_.config.vocab_size;
  std::vector<float> logits(plan_.shape.num_tokens * vocab);
  RETURN_IF_ERROR(forward_->Logits(plan_.shape, stream_, [&](int32_t first, int32_t rows) {
    return CudaStatus(
        cudaMemcpyAsync(logits.data() + first * vocab, buffers_.logits,
                        rows * vocab * sizeof(float), cudaMemcpyDeviceToHost, stream_),
        "copying logits");
  }));
  AdvanceAges(batch);
  CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_));
  // Rows follow the sequences; put them where the batch has the tokens.
  std::vector<float> ordered(batch.tokens.size() * vocab);
  int64_t row = 0;
  for (const StepSequence& s : batch.sequences) {
    std::copy_n(logits.begin() + row * vocab, s.num_tokens * vocab,
                ordered.begin() + s.token_begin * vocab);
    row += s.num_tokens;
  }
  return ordered;
}

}  // namespace hgrn2
