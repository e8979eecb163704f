// The CUDA backend's work on single slots: sampling parameters, copies of states.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <algorithm>
#include <limits>

#include "engine/backend/cuda_backend.h"
#include "engine/backend/cuda_status.h"
#include "engine/backend/step_checks.h"

namespace hgrn2 {
namespace {

// A stream-ordered device copy of host vectors for one call; freed in stream order too.
class DeviceLists {
 public:
  explicit DeviceLists(cudaStream_t stream) : stream_(stream) {}
  ~DeviceLists() {
    for (void* p : memory_) cudaFreeAsync(p, stream_);
  }
  template <typename T>
  absl::Status Copy(const std::vector<T>& values, const T** out, int32_t* count) {
    *count = static_cast<int32_t>(values.size());
    if (values.empty()) return absl::OkStatus();
    void* p = nullptr;
    CUDA_RETURN_IF_ERROR(cudaMallocAsync(&p, values.size() * sizeof(T), stream_));
    memory_.push_back(p);
    *out = static_cast<const T*>(p);
    // From pageable memory: the source may go as soon as this returns.
    return CudaStatus(cudaMemcpyAsync(p, values.data(), values.size() * sizeof(T),
                                      cudaMemcpyHostToDevice, stream_),
                      "copying sampling lists");
  }

 private:
  cudaStream_t stream_;
  std::vector<void*> memory_;
};

float ToFloat(const uint8_t* data, int64_t i, DType type) {
  switch (type) {
    case DType::kF32:
      return reinterpret_cast<const float*>(data)[i];
    case DType::kF16:
      return __half2float(reinterpret_cast<const __half*>(data)[i]);
    case DType::kBF16:
      return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(data)[i]);
    case DType::kF8E4M3:
      return static_cast<float>(reinterpret_cast<const __nv_fp8_e4m3*>(data)[i]);
  }
  return 0;
}

// The blob's state as float32 [L][H][K][V].
std::vector<float> StateToFloat(const StateBlob& blob, int64_t size, int64_t head_dim) {
  std::vector<float> values(size);
  const float* scales = reinterpret_cast<const float*>(blob.scales.data());
  for (int64_t i = 0; i < size; ++i) {
    values[i] = ToFloat(blob.state.data(), i, blob.dtype);
    if (blob.dtype == DType::kF8E4M3) values[i] *= scales[i / head_dim];
  }
  return values;
}

// `layers` rows of `bytes`, `to_pitch` and `from_pitch` apart. With very many slots a pitch is more
// than cudaMemcpy2DAsync takes.
cudaError_t CopyLayers(uint8_t* to, int64_t to_pitch, const uint8_t* from, int64_t from_pitch,
                       int64_t bytes, int32_t layers, cudaStream_t stream) {
  if (std::max(to_pitch, from_pitch) <= std::numeric_limits<int32_t>::max()) {
    return cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, bytes, layers, cudaMemcpyDefault,
                             stream);
  }
  for (int32_t l = 0; l < layers; ++l) {
    const cudaError_t error =
        cudaMemcpyAsync(to + l * to_pitch, from + l * from_pitch, bytes, cudaMemcpyDefault, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

absl::Status CudaBackend::ConfigureSlot(int32_t slot, const SlotSampling& s) {
  RETURN_IF_ERROR(CheckSlot(slot, sizes_.num_slots));
  CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
  cuda::ConfigureSlotParams p;
  p.slot = slot;
  p.vocab = sizes_.config.vocab_size;
  p.sampling.scalars = s.scalars;
  p.sampling.min_tokens = s.min_tokens_bans.empty() ? 0 : s.min_tokens;
  p.sampling.has_bias =
      !s.logit_bias.empty() || !s.allowed_token_ids.empty() || !s.banned_token_ids.empty();
  p.sampling.has_token_flags = s.HasPenalties() || p.sampling.min_tokens > s.num_generated;
  p.num_generated = s.num_generated;
  p.clear_token_flags = flags_dirty_[slot];
  p.all_banned = !s.allowed_token_ids.empty();
  p.slots = buffers_.slot_params;
  p.bias = buffers_.bias;
  p.token_flags = buffers_.token_flags;
  p.generated_counts = buffers_.num_generated;
  p.last_tokens = buffers_.last_token;
  if (!s.generated_tokens.empty()) p.last_token = s.generated_tokens.back();

  DeviceLists lists(stream_);
  std::vector<int32_t> bias_ids;
  std::vector<float> bias_values;
  for (const auto& [id, value] : s.logit_bias) {
    bias_ids.push_back(id);
    bias_values.push_back(value);
  }
  RETURN_IF_ERROR(lists.Copy(s.allowed_token_ids, &p.allowed, &p.num_allowed));
  RETURN_IF_ERROR(lists.Copy(bias_ids, &p.bias_ids, &p.num_bias));
  RETURN_IF_ERROR(lists.Copy(bias_values, &p.bias_values, &p.num_bias));
  RETURN_IF_ERROR(lists.Copy(s.banned_token_ids, &p.banned, &p.num_banned));
  RETURN_IF_ERROR(lists.Copy(s.min_tokens_bans, &p.min_bans, &p.num_min_bans));
  if (s.HasPenalties()) {
    RETURN_IF_ERROR(lists.Copy(s.prompt_tokens, &p.prompt, &p.num_prompt));
    RETURN_IF_ERROR(lists.Copy(s.generated_tokens, &p.generated, &p.num_generated_list));
  }
  flags_dirty_[slot] = p.sampling.has_token_flags;
  logprobs_[slot] = s.scalars.logprobs;
  return CudaStatus(cuda::ConfigureSlot(p, stream_), "configuring a slot");
}

absl::Status CudaBackend::CopySlab(uint8_t* base, int32_t slot, int64_t slot_bytes, void* host,
                                   bool to_host) {
  if (base == nullptr) return absl::OkStatus();
  const int64_t pitch = slot_bytes * sizes_.num_slots;
  uint8_t* device = base + slot * slot_bytes;
  auto* bytes = static_cast<uint8_t*>(host);
  const int32_t layers = sizes_.config.num_layers;
  return CudaStatus(to_host
                        ? CopyLayers(bytes, slot_bytes, device, pitch, slot_bytes, layers, stream_)
                        : CopyLayers(device, pitch, bytes, slot_bytes, slot_bytes, layers, stream_),
                    "copying a state");
}

absl::Status CudaBackend::CopyState(int32_t from_slot, int32_t to_slot) {
  RETURN_IF_ERROR(CheckSlot(from_slot, sizes_.num_slots));
  RETURN_IF_ERROR(CheckSlot(to_slot, sizes_.num_slots));
  if (from_slot == to_slot) return absl::OkStatus();
  CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
  if (ages_[from_slot] > 0) RETURN_IF_ERROR(FoldRing(from_slot));  // as SaveState does
  const int32_t layers = sizes_.config.num_layers;
  const SlotLayerBytes bytes = SlotBytes(sizes_);
  const auto copy = [&](uint8_t* base, int64_t slot_bytes) {
    if (base == nullptr) return cudaSuccess;
    const int64_t pitch = slot_bytes * sizes_.num_slots;
    return CopyLayers(base + to_slot * slot_bytes, pitch, base + from_slot * slot_bytes, pitch,
                      slot_bytes, layers, stream_);
  };
  CUDA_RETURN_IF_ERROR(copy(buffers_.state_base, bytes.state));
  CUDA_RETURN_IF_ERROR(copy(buffers_.scales_base, bytes.scales));
  CUDA_RETURN_IF_ERROR(copy(buffers_.conv_base, bytes.conv));
  ages_[to_slot] = 0;
  return CudaStatus(cudaMemsetAsync(buffers_.age + to_slot, 0, sizeof(int32_t), stream_),
                    "copying a state");
}

// Brings the slot's state up to date in every layer and empties its ring.
absl::Status CudaBackend::FoldRing(int32_t slot) {
  const cuda::AdvanceAgesParams ages = {buffers_.age, buffers_.identity + slot, buffers_.ones, 1};
  if (ages_[slot] > 0) {
    const cuda::ModelView& m = model_->view();
    for (int32_t l = 0; l < m.num_layers; ++l) {
      const cuda::GatherStateParams p = {buffers_.state[l],
                                         forward_->Ring(l),
                                         m.layers[l].lower_bound,
                                         buffers_.identity + slot,
                                         nullptr,
                                         1,
                                         m.heads,
                                         m.head_dim,
                                         m.activation_type};
      CUDA_RETURN_IF_ERROR(cuda::LaunchGatherState(p, stream_));
    }
  }
  ages_[slot] = 0;
  return CudaStatus(cuda::LaunchAdvanceAges(ages, stream_), "folding a ring");
}

absl::StatusOr<StateBlob> CudaBackend::SaveState(int32_t slot) {
  RETURN_IF_ERROR(CheckSlot(slot, sizes_.num_slots));
  CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
  RETURN_IF_ERROR(FoldRing(slot));
  const ModelConfig& c = sizes_.config;
  const SlotLayerBytes bytes = SlotBytes(sizes_);
  StateBlob blob;
  blob.model_hash = model_hash_;
  blob.dtype = sizes_.state_dtype;
  blob.state.resize(c.num_layers * bytes.state);
  blob.scales.resize(c.num_layers * bytes.scales);
  std::vector<uint8_t> conv(c.num_layers * bytes.conv);
  RETURN_IF_ERROR(CopySlab(buffers_.state_base, slot, bytes.state, blob.state.data(), true));
  RETURN_IF_ERROR(CopySlab(buffers_.scales_base, slot, bytes.scales, blob.scales.data(), true));
  RETURN_IF_ERROR(CopySlab(buffers_.conv_base, slot, bytes.conv, conv.data(), true));
  CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_));
  blob.conv.resize(c.ConvStateSize());
  for (size_t i = 0; i < blob.conv.size(); ++i) {
    blob.conv[i] = ToFloat(conv.data(), i, sizes_.activation);
  }
  return blob;
}

absl::Status CudaBackend::RestoreState(int32_t slot, const StateBlob& blob) {
  RETURN_IF_ERROR(CheckSlot(slot, sizes_.num_slots));
  CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
  const ModelConfig& c = sizes_.config;
  if (blob.model_hash != model_hash_) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition, "the state is of model {}, not of {}",
                      blob.model_hash, model_hash_);
  }
  const size_t size = c.StateSize();
  const size_t scales = blob.dtype == DType::kF8E4M3 ? size / c.head_dim * sizeof(float) : 0;
  if (blob.state.size() != size * SizeOf(blob.dtype) || blob.scales.size() != scales ||
      blob.conv.size() != static_cast<size_t>(c.ConvStateSize())) {
    return MakeStatus(
        absl::StatusCode::kInvalidArgument,
        "the state has {} + {} bytes and {} conv inputs; {} + {} and {} were expected",
        blob.state.size(), blob.scales.size(), blob.conv.size(), size * SizeOf(blob.dtype), scales,
        c.ConvStateSize());
  }
  const SlotLayerBytes bytes = SlotBytes(sizes_);
  if (blob.dtype == sizes_.state_dtype) {
    RETURN_IF_ERROR(CopySlab(buffers_.state_base, slot, bytes.state,
                             const_cast<uint8_t*>(blob.state.data()), false));
    RETURN_IF_ERROR(CopySlab(buffers_.scales_base, slot, bytes.scales,
                             const_cast<uint8_t*>(blob.scales.data()), false));
  } else {
    RETURN_IF_ERROR(ScatterState(slot, StateToFloat(blob, size, c.head_dim)));
  }
  std::vector<uint8_t> conv(c.num_layers * bytes.conv);
  for (size_t i = 0; i < blob.conv.size(); ++i) {
    if (sizes_.activation == DType::kF32) {
      reinterpret_cast<float*>(conv.data())[i] = blob.conv[i];
    } else {
      reinterpret_cast<__nv_bfloat16*>(conv.data())[i] = __float2bfloat16(blob.conv[i]);
    }
  }
  RETURN_IF_ERROR(CopySlab(buffers_.conv_base, slot, bytes.conv, conv.data(), false));
  ages_[slot] = 0;
  const cuda::AdvanceAgesParams ages = {buffers_.age, buffers_.identity + slot, buffers_.ones, 1};
  CUDA_RETURN_IF_ERROR(cuda::LaunchAdvanceAges(ages, stream_));
  // The copies read the caller's memory.
  return CudaStatus(cudaStreamSynchronize(stream_), "restoring a state");
}

// Rounds a float32 state [L][H][K][V] to the slab's dtype on the device.
absl::Status CudaBackend::ScatterState(int32_t slot, const std::vector<float>& values) {
  DeviceLists lists(stream_);
  const float* device = nullptr;
  int32_t count = 0;
  RETURN_IF_ERROR(lists.Copy(values, &device, &count));
  const ModelConfig& c = sizes_.config;
  for (int32_t l = 0; l < c.num_layers; ++l) {
    const cuda::ScatterStateParams p = {buffers_.state[l],
                                        device + l * c.StateSize() / c.num_layers,
                                        buffers_.identity + slot,
                                        1,
                                        c.num_heads,
                                        c.head_dim};
    CUDA_RETURN_IF_ERROR(cuda::LaunchScatterState(p, stream_));
  }
  return absl::OkStatus();
}

}  // namespace hgrn2
