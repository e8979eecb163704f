#include "engine/backend/cuda_buffers.h"

#include <algorithm>
#include <numeric>

#include "engine/backend/cuda_status.h"
#include "engine/backend/cuda_step.h"
#include "kernels/cuda/gemm/decode_gemm.h"
#include "kernels/cuda/gemm/gemm.h"

namespace hgrn2 {

SlotLayerBytes SlotBytes(const CudaSizes& s) {
  const int64_t d = s.config.hidden_size, k = s.config.head_dim;
  SlotLayerBytes bytes;
  bytes.state = d * k * static_cast<int64_t>(SizeOf(s.state_dtype));
  bytes.scales = s.state_dtype == DType::kF8E4M3 ? d * 4 : 0;
  bytes.ring = static_cast<int64_t>(
      cuda::ReplayRingBytes(1, s.ring_length, s.config.hidden_size, s.activation));
  bytes.conv = s.config.conv_size > 0
                   ? 3 * (s.config.conv_size - 1) * d * static_cast<int64_t>(SizeOf(s.activation))
                   : 0;
  return bytes;
}

namespace {

// Bytes per token of the attention's and the MLP's activations, which share memory.
int64_t AttentionBytes(const CudaSizes& s) {
  return (s.config.conv_size > 0 ? 7 : 4) * int64_t{s.config.hidden_size} *
         static_cast<int64_t>(SizeOf(s.activation));
}
int64_t MlpBytes(const CudaSizes& s) {
  return 3 * int64_t{s.config.intermediate_size} * static_cast<int64_t>(SizeOf(s.activation));
}
int64_t OSquares(const CudaSizes& s) {
  return s.PaddedTokens() * cuda::CeilDiv(s.config.hidden_size, cuda::kSumSquareGroup);
}
// The most rows of a fused layer.
int64_t FusedRows(const CudaSizes& s) {
  return std::min<int64_t>(s.PaddedTokens(), cuda::kMaxDecodeGemmTokens);
}
int64_t XSquares(const CudaSizes& s) {
  return FusedRows(s) * cuda::CeilDiv(s.config.hidden_size, cuda::kSquareSumRows);
}
int64_t HeadRows(const CudaSizes& s) { return s.LogitChunk() + cuda::kDecodeGemmTokenTile; }
// What fused FP8 layers hand on beside their activations, in words.
int64_t Fp8Words(const CudaSizes& s) {
  if (!s.fp8_weights) return 0;
  return FusedRows(s) * (1 + cuda::kSquareStride);
}
size_t PrefillWorkspace(const CudaSizes& s) {
  const int32_t states = cuda::MaxPrefillWorkspaceStates(
      s.max_tokens, s.num_slots, s.config.head_dim, s.activation, s.state_dtype);
  return cuda::PrefillWorkspaceBytes(states, s.config.num_heads, s.config.head_dim);
}

std::string Gib(int64_t bytes) { return fmt::format("{:.2f} GiB", bytes / 1073741824.0); }

}  // namespace

int64_t CudaSizes::PaddedTokens() const {
  return std::max<int64_t>(cuda::GemmTokenBucket(std::max(max_tokens, num_slots)),
                           kLeastProductRows);
}

int64_t CudaSizes::ActivationRows() const { return PaddedTokens() + cuda::kDecodeGemmTokenTile; }

int32_t CudaSizes::LogitChunk() const {
  constexpr int64_t kTarget = int64_t{512} << 20;
  const int64_t rows = kTarget / (4 * int64_t{config.vocab_size}) / 256 * 256;
  return static_cast<int32_t>(
      std::min<int64_t>(std::clamp<int64_t>(rows, 256, 2048), PaddedTokens() + 256));
}

int64_t CudaSizes::StateBytesPerSlot() const {
  const SlotLayerBytes b = SlotBytes(*this);
  return config.num_layers * (b.state + b.scales + b.ring + b.conv);
}
int64_t CudaSizes::BytesPerSlot() const {
  return StateBytesPerSlot() + 8 * int64_t{config.vocab_size} + 512;
}

int64_t CudaSizes::WorkspaceBytes() const {
  const int64_t d = config.hidden_size, a = static_cast<int64_t>(SizeOf(activation));
  const int64_t per_token = d * (4 + 2 * a) + 16 + std::max(AttentionBytes(*this), MlpBytes(*this));
  const int64_t head =
      HeadRows(*this) * d * a + int64_t{LogitChunk()} * 4 * int64_t{config.vocab_size};
  return ActivationRows() * per_token + 4 * (OSquares(*this) + XSquares(*this) + Fp8Words(*this)) +
         head + static_cast<int64_t>(PrefillWorkspace(*this)) +
         static_cast<int64_t>(cuda::Gemm::kWorkspaceBytes + MaxStepBytes(max_tokens, num_slots));
}

absl::StatusOr<int32_t> FitSlots(const CudaSizes& sizes, int64_t weight_bytes,
                                 const MemoryBudget& budget) {
  CudaSizes s = sizes;
  // The workspace grows with the slots too.
  const auto fits = [&](int32_t slots) {
    s.num_slots = slots;
    return weight_bytes + s.WorkspaceBytes() + slots * s.BytesPerSlot() <= budget.Bytes();
  };
  if (!fits(1)) {
    const int64_t workspace = s.WorkspaceBytes();
    return MakeStatus(
        absl::StatusCode::kResourceExhausted,
        "device memory: {} x {:.2f} (--gpu-memory-utilization) - {} in use - {} for the driver = "
        "{}, but weights of {} + a workspace of {} for {} tokens a step + one sequence of {} = {}; "
        "use a larger --gpu-memory-utilization, a smaller --max-num-batched-tokens or "
        "--state-dtype fp8",
        Gib(budget.total), budget.utilization, Gib(budget.taken), Gib(budget.reserve),
        Gib(budget.Bytes()), Gib(weight_bytes), Gib(workspace), s.max_tokens, Gib(s.BytesPerSlot()),
        Gib(weight_bytes + workspace + s.BytesPerSlot()));
  }
  int32_t fit = 1, too_many = sizes.num_slots + 1;
  while (too_many - fit > 1) {
    const int32_t middle = fit + (too_many - fit) / 2;
    (fits(middle) ? fit : too_many) = middle;
  }
  return fit;
}

namespace {

absl::Status AllocateStates(const CudaSizes& s, DeviceMemory* memory, CudaBuffers* b) {
  const SlotLayerBytes bytes = SlotBytes(s);
  const int64_t layers = s.config.num_layers, slots = s.num_slots;
  RETURN_IF_ERROR(memory->Take(&b->state_base, layers * slots * bytes.state, "states"));
  if (bytes.scales) {
    RETURN_IF_ERROR(memory->Take(&b->scales_base, layers * slots * bytes.scales, "state scales"));
  }
  if (bytes.ring) {
    RETURN_IF_ERROR(memory->Take(&b->ring_base, layers * slots * bytes.ring, "replay rings"));
  }
  if (bytes.conv) {
    RETURN_IF_ERROR(memory->Take(&b->conv_base, layers * slots * bytes.conv, "conv inputs"));
  }
  const auto at = [](uint8_t* base, int64_t offset) -> void* {
    return base ? base + offset : nullptr;
  };
  for (int64_t l = 0; l < layers; ++l) {
    b->state.push_back({b->state_base + l * slots * bytes.state,
                        static_cast<float*>(at(b->scales_base, l * slots * bytes.scales)),
                        s.state_dtype});
    b->ring.push_back(at(b->ring_base, l * slots * bytes.ring));
    b->conv_state.push_back(at(b->conv_base, l * slots * bytes.conv));
  }
  RETURN_IF_ERROR(memory->Take(&b->age, slots, "ring ages"));
  RETURN_IF_ERROR(memory->Take(&b->identity, slots, "slot list"));
  RETURN_IF_ERROR(memory->Take(&b->work_counters, 2, "work counters"));
  return memory->Take(&b->ones, slots, "slot flags");
}

absl::Status AllocateActivations(const CudaSizes& s, DeviceMemory* memory, CudaActivations* out) {
  const int64_t tokens = s.ActivationRows(), d = s.config.hidden_size,
                m = s.config.intermediate_size, a = static_cast<int64_t>(SizeOf(s.activation));
  RETURN_IF_ERROR(memory->Take(&out->x, tokens * d, "residual stream"));
  ASSIGN_OR_RETURN(out->delta, memory->Allocate(tokens * d * a, "activations"));
  ASSIGN_OR_RETURN(out->h, memory->Allocate(tokens * d * a, "activations"));
  RETURN_IF_ERROR(memory->Take(&out->h_scale, tokens, "activation scales"));
  RETURN_IF_ERROR(memory->Take(&out->act_scale, tokens, "activation scales"));
  RETURN_IF_ERROR(memory->Take(&out->o_squares, OSquares(s), "sums of squares"));
  RETURN_IF_ERROR(memory->Take(&out->x_squares, XSquares(s), "sums of squares"));
  if (s.fp8_weights) {
    const int64_t most = FusedRows(s);
    RETURN_IF_ERROR(memory->Take(&out->x_norm, most, "norms"));
    RETURN_IF_ERROR(memory->Take(&out->act_squares, most * cuda::kSquareStride, "sums of squares"));
  }
  uint8_t* shared = nullptr;
  RETURN_IF_ERROR(
      memory->Take(&shared, tokens * std::max(AttentionBytes(s), MlpBytes(s)), "activations"));
  out->qfi = shared;
  out->o = shared + tokens * 3 * d * a;
  out->qfi_conv = s.config.conv_size > 0 ? shared + tokens * 4 * d * a : nullptr;
  out->gate_up = shared;
  out->act = shared + tokens * 2 * m * a;
  ASSIGN_OR_RETURN(out->gemm_workspace,
                   memory->Allocate(cuda::Gemm::kWorkspaceBytes, "product workspace"));
  return absl::OkStatus();
}

absl::Status AllocateStep(const CudaSizes& s, DeviceMemory* memory, CudaBuffers* b) {
  RETURN_IF_ERROR(AllocateActivations(s, memory, &b->activations));
  const int64_t d = s.config.hidden_size, a = static_cast<int64_t>(SizeOf(s.activation));
  RETURN_IF_ERROR(memory->Take(&b->resolved_tokens, s.PaddedTokens(), "token ids"));
  ASSIGN_OR_RETURN(b->prefill_workspace,
                   memory->Allocate(PrefillWorkspace(s), "prefill workspace"));
  ASSIGN_OR_RETURN(b->head_in, memory->Allocate(HeadRows(s) * d * a, "head input"));
  return memory->Take(&b->logits, int64_t{s.LogitChunk()} * s.config.vocab_size, "logits");
}

absl::Status AllocateSampling(const CudaSizes& s, DeviceMemory* memory, CudaBuffers* b) {
  const int64_t slots = s.num_slots, table = slots * s.config.vocab_size;
  RETURN_IF_ERROR(memory->Take(&b->slot_params, slots, "sampling parameters"));
  RETURN_IF_ERROR(memory->Take(&b->bias, table, "logit bias"));
  RETURN_IF_ERROR(memory->Take(&b->token_flags, table, "penalty counts"));
  RETURN_IF_ERROR(memory->Take(&b->last_token, slots, "last tokens"));
  RETURN_IF_ERROR(memory->Take(&b->num_generated, slots, "positions"));
  RETURN_IF_ERROR(memory->Take(&b->step, 1, "step counter"));
  for (cuda::TokenResult*& results : b->results) {
    ASSIGN_OR_RETURN(
        void* host,
        memory->AllocateHost((s.max_tokens + slots + 256) * sizeof(cuda::TokenResult), "results"));
    results = static_cast<cuda::TokenResult*>(host);
  }
  b->step_bytes = MaxStepBytes(s.max_tokens, s.num_slots);
  RETURN_IF_ERROR(memory->Take(&b->step_device, b->step_bytes, "step arrays"));
  for (uint8_t*& host : b->step_host) {
    ASSIGN_OR_RETURN(void* p, memory->AllocateHost(b->step_bytes, "step arrays"));
    host = static_cast<uint8_t*>(p);
  }
  return absl::OkStatus();
}

// Rows that no step has written yet are read by padded products; NaNs there would be harmless but
// memory checkers rightly complain.
absl::Status Clear(const CudaSizes& s, CudaBuffers* b, cudaStream_t stream) {
  const int64_t d = s.config.hidden_size, a = static_cast<int64_t>(SizeOf(s.activation)),
                slots = s.num_slots;
  const SlotLayerBytes bytes = SlotBytes(s);
  const int64_t layers = s.config.num_layers;
  const auto zero = [&](void* p, int64_t n) {
    return p == nullptr || n == 0 ? cudaSuccess : cudaMemsetAsync(p, 0, n, stream);
  };
  const int64_t tokens = s.ActivationRows();
  const CudaActivations& out = b->activations;
  CUDA_RETURN_IF_ERROR(zero(out.x, tokens * d * 4));
  CUDA_RETURN_IF_ERROR(zero(out.delta, tokens * d * a));
  CUDA_RETURN_IF_ERROR(zero(out.h, tokens * d * a));
  CUDA_RETURN_IF_ERROR(zero(out.h_scale, tokens * 4));
  CUDA_RETURN_IF_ERROR(zero(out.act_scale, tokens * 4));
  CUDA_RETURN_IF_ERROR(zero(out.o_squares, OSquares(s) * 4));
  CUDA_RETURN_IF_ERROR(zero(out.x_squares, XSquares(s) * 4));
  CUDA_RETURN_IF_ERROR(zero(out.qfi, tokens * std::max(AttentionBytes(s), MlpBytes(s))));
  CUDA_RETURN_IF_ERROR(zero(b->head_in, HeadRows(s) * d * a));
  CUDA_RETURN_IF_ERROR(zero(b->state_base, layers * slots * bytes.state));
  CUDA_RETURN_IF_ERROR(zero(b->scales_base, layers * slots * bytes.scales));
  CUDA_RETURN_IF_ERROR(zero(b->ring_base, layers * slots * bytes.ring));
  CUDA_RETURN_IF_ERROR(zero(b->conv_base, layers * slots * bytes.conv));
  CUDA_RETURN_IF_ERROR(zero(b->age, slots * 4));
  CUDA_RETURN_IF_ERROR(zero(b->work_counters, 2 * sizeof(uint32_t)));
  CUDA_RETURN_IF_ERROR(zero(b->slot_params, slots * sizeof(cuda::SlotSamplingParams)));
  CUDA_RETURN_IF_ERROR(zero(b->token_flags, slots * s.config.vocab_size * 4));
  CUDA_RETURN_IF_ERROR(zero(b->last_token, slots * 4));
  CUDA_RETURN_IF_ERROR(zero(b->num_generated, slots * 4));
  CUDA_RETURN_IF_ERROR(zero(b->step, 4));
  CUDA_RETURN_IF_ERROR(cudaMemsetAsync(b->ones, 1, slots, stream));
  std::vector<int32_t> identity(slots);
  std::iota(identity.begin(), identity.end(), 0);
  return CudaStatus(
      cudaMemcpy(b->identity, identity.data(), slots * sizeof(int32_t), cudaMemcpyHostToDevice),
      "slot list");
}

}  // namespace

absl::Status CudaBuffers::Allocate(const CudaSizes& sizes, DeviceMemory* memory,
                                   cudaStream_t stream) {
  RETURN_IF_ERROR(AllocateStates(sizes, memory, this));
  RETURN_IF_ERROR(AllocateStep(sizes, memory, this));
  RETURN_IF_ERROR(AllocateSampling(sizes, memory, this));
  return Clear(sizes, this, stream);
}

}  // namespace hgrn2
