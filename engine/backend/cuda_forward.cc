#include "engine/backend/cuda_forward.h"

#include <algorithm>
#include <limits>

#include "engine/backend/cuda_status.h"
#include "kernels/cuda/mlp/mlp.h"

namespace hgrn2 {

CudaForward::CudaForward(const CudaModel& model, const CudaSizes& sizes, CudaBuffers& buffers,
                         bool programmatic_launch)
    : model_(model.view()), sizes_(sizes), buffers_(buffers), overlap_(programmatic_launch) {}

namespace {
int32_t most_fused_rows = std::numeric_limits<int32_t>::max();
}  // namespace
void CudaForward::LimitFusedRows(int32_t rows) { most_fused_rows = rows; }

absl::Status CudaForward::Init() {
  CUDA_RETURN_IF_ERROR(cuda::InitSampling());
  const cudaError_t own = cuda::InitDecodeGemm();
  if (own != cudaErrorNotSupported) CUDA_RETURN_IF_ERROR(own);
  has_decode_gemm_ = own == cudaSuccess;
  return GemmStatus(gemm_.Init(buffers_.activations.gemm_workspace));
}

cuda::ReplayRing CudaForward::Ring(int32_t layer) const {
  // Layers fold at different steps, so that every step costs the same.
  return {buffers_.ring[layer], buffers_.age, sizes_.ring_length, layer % sizes_.ring_length};
}

bool CudaForward::IsOwnProduct(const cuda::MatrixView& w, int64_t rows,
                               cuda::GemmEpilogue epilogue) const {
  return has_decode_gemm_ && cuda::PreferDecodeGemm(w.rows, w.cols, rows, w.type, epilogue);
}

bool CudaForward::IsOwnAlone(const cuda::MatrixView& weight, int64_t rows) const {
  constexpr int64_t kMostRows = 256;  // beyond, it is faster only for what it does beside a product
  return rows <= kMostRows && IsOwnProduct(weight, rows, cuda::GemmEpilogue::kStore);
}

cuda::DecodeGemmParams CudaForward::OwnProduct(const cuda::MatrixView& weight, const void* x,
                                               const float* x_scale, int64_t rows) const {
  cuda::DecodeGemmParams p;
  p.weight = weight;
  p.x = x;
  p.x_scale = x_scale;
  p.tokens = static_cast<int32_t>(rows);
  p.overlap = overlap_;
  return p;
}

absl::Status CudaForward::Product(const cuda::MatrixView& weight, const void* x,
                                  const float* x_scale, void* out, DType out_type, int64_t rows,
                                  cudaStream_t stream) {
  if (IsOwnAlone(weight, rows)) {
    cuda::DecodeGemmParams p = OwnProduct(weight, x, x_scale, rows);
    p.out = out;
    p.out_type = out_type;
    return CudaStatus(cuda::DecodeGemm(p, stream), "product");
  }
  return GemmStatus(
      gemm_.Run({weight, x, x_scale, out, out_type, std::max(rows, kLeastProductRows)}, stream));
}

bool CudaForward::LeavesScales(const cuda::MatrixView& weight, int64_t rows) const {
  return weight.type == DType::kF8E4M3 && !IsOwnAlone(weight, rows);
}

absl::Status CudaForward::UnscaledProduct(const cuda::MatrixView& weight, const void* x,
                                          const float* x_scale, void* out, int64_t rows,
                                          cudaStream_t stream) {
  if (!LeavesScales(weight, rows)) {
    return Product(weight, x, x_scale, out, model_.activation_type, rows, stream);
  }
  cuda::GemmParams p = {
      weight, x, nullptr, out, model_.activation_type, std::max(rows, kLeastProductRows)};
  p.unscaled = true;
  return GemmStatus(gemm_.Run(p, stream));
}

void CudaForward::ScaleDelta(const cuda::MatrixView& product, const float* x_scale,
                             int64_t product_rows, cuda::RmsNormParams* p) const {
  if (!LeavesScales(product, product_rows)) return;
  p->delta_row_scale = x_scale;
  p->delta_col_scale = product.scale;
}

absl::Status CudaForward::Norm(const cuda::MatrixView& weight, const float* norm,
                               const cuda::MatrixView* product, const float* x_scale,
                               bool delta_squares, float* norm_out, int64_t rows,
                               cudaStream_t stream) {
  cuda::RmsNormParams p;
  p.x = buffers_.activations.x;
  p.delta = product ? buffers_.activations.delta : nullptr;
  if (product) ScaleDelta(*product, x_scale, rows, &p);
  p.delta_type = model_.activation_type;
  if (delta_squares) {
    p.delta_square_sums = buffers_.activations.o_squares;
    p.num_delta_square_sums = model_.d / cuda::kSumSquareGroup;
    p.delta_eps = model_.g_norm_eps;
  }
  p.weight = norm;
  p.out = buffers_.activations.h;
  p.out_type = weight.type;
  p.out_scale = buffers_.activations.h_scale;
  p.norm_out = norm_out;
  p.rows = rows;
  p.d = model_.d;
  p.eps = model_.norm_eps;
  p.overlap = overlap_;
  return CudaStatus(cuda::RmsNorm(p, stream), "norm");
}

absl::Status CudaForward::ShortConv(const StepShape& shape, int32_t layer, cudaStream_t stream) {
  cuda::ShortConvParams conv;
  conv.x = buffers_.activations.qfi;
  conv.y = buffers_.activations.qfi_conv;
  conv.weight = model_.layers[layer].conv;
  conv.state = buffers_.conv_state[layer];
  conv.conv_size = model_.conv_size;
  conv.d = model_.d;
  conv.activation = model_.activation_type;
  if (shape.decode_slots.count > 0) {
    const cuda::ShortConvDecodeParams p = {
        conv, Array<int32_t>(shape.decode_slots), Array<int32_t>(shape.decode_rows),
        Array<uint8_t>(shape.decode_reset), shape.decode_slots.count};
    CUDA_RETURN_IF_ERROR(cuda::LaunchShortConvDecode(p, stream));
  }
  if (shape.prefill_items.count > 0) {
    const cuda::ShortConvPrefillParams p = {conv, Array<cuda::PrefillItem>(shape.prefill_items),
                                            shape.prefill_items.count};
    CUDA_RETURN_IF_ERROR(cuda::LaunchShortConvPrefill(p, stream));
  }
  return absl::OkStatus();
}

absl::Status CudaForward::DecodeRecurrence(const StepShape& shape, int32_t layer,
                                           cudaStream_t stream) {
  cuda::DecodeStepParams p;
  p.qfi = RecurrenceInput();
  p.o = buffers_.activations.o;
  if (DefersGNorm()) p.sum_squares = buffers_.activations.o_squares;
  p.lower_bound = model_.layers[layer].lower_bound;
  p.slots = Array<int32_t>(shape.decode_slots);
  p.token_rows = Array<int32_t>(shape.decode_rows);
  p.reset = Array<uint8_t>(shape.decode_reset);
  p.state = buffers_.state[layer];
  p.ring = Ring(layer);
  p.batch = shape.decode_slots.count;
  p.num_heads = model_.heads;
  p.head_dim = model_.head_dim;
  p.activation = model_.activation_type;
  p.programmatic = overlap_;
  p.after_prefill = IsMixed(shape);
  if (IsMixed(shape)) {  // prompts keep some blocks from starting
    p.work_counters = buffers_.work_counters;
    // Longer prompts, and states of 8 bits, are what the layer waits for: decodes that read faster
    // would slow them down (measured).
    constexpr int32_t kShortPrompts = 64;
    const int32_t prompt_rows = shape.padded_tokens - shape.decode_slots.count;
    if (prompt_rows <= kShortPrompts && SizeOf(p.state.dtype) > 1)
      p.late_processors = shape.prefill_items.count * model_.heads;
  }
  return CudaStatus(cuda::LaunchDecodeStep(p, stream), "decode step");
}

absl::Status CudaForward::PrefillRecurrence(const StepShape& shape, int32_t layer,
                                            cudaStream_t stream) {
  const float* lower_bound = model_.layers[layer].lower_bound;
  if (shape.flush_slots.count > 0) {
    const cuda::GatherStateParams p = {buffers_.state[layer],
                                       Ring(layer),
                                       lower_bound,
                                       Array<int32_t>(shape.flush_slots),
                                       nullptr,
                                       shape.flush_slots.count,
                                       model_.heads,
                                       model_.head_dim,
                                       model_.activation_type};
    CUDA_RETURN_IF_ERROR(cuda::LaunchGatherState(p, stream));
  }
  cuda::PrefillParams p;
  p.qfi = RecurrenceInput();
  p.o = buffers_.activations.o;
  if (DefersGNorm()) p.sum_squares = buffers_.activations.o_squares;
  p.lower_bound = lower_bound;
  p.items = Array<cuda::PrefillItem>(shape.prefill_items);
  p.workspace = buffers_.prefill_workspace;
  p.state = buffers_.state[layer];
  p.num_items = shape.prefill_items.count;
  p.has_long_sequences = shape.has_long_sequences;
  p.num_heads = model_.heads;
  p.head_dim = model_.head_dim;
  p.activation = model_.activation_type;
  p.programmatic = overlap_;
  return CudaStatus(cuda::LaunchPrefill(p, stream), "prefill");
}

// Decodes and prompts of a step are different sequences and run side by side. A short prompt keeps
// a few multiprocessors busy for as long as the decodes keep all others, so it must get them first.
absl::Status CudaForward::Recurrence(const StepShape& shape, int32_t layer, cudaStream_t stream) {
  if (shape.prefill_items.count > 0) RETURN_IF_ERROR(PrefillRecurrence(shape, layer, stream));
  if (shape.decode_slots.count > 0) RETURN_IF_ERROR(DecodeRecurrence(shape, layer, stream));
  return absl::OkStatus();
}

absl::Status CudaForward::GNorm(const StepShape& shape, int32_t layer, cudaStream_t stream) {
  const cuda::LayerView& w = model_.layers[layer];
  const CudaActivations& a = buffers_.activations;
  cuda::RmsNormParams p;
  p.x = a.o;
  p.x_type = model_.activation_type;
  p.delta_type = model_.activation_type;
  p.weight = w.g_norm;
  p.out = a.h;
  p.out_type = w.o.type;
  p.out_scale = a.h_scale;
  p.rows = shape.padded_tokens;
  p.d = model_.d;
  p.eps = model_.g_norm_eps;
  p.overlap = overlap_;
  return CudaStatus(cuda::RmsNorm(p, stream), "g_norm");
}

bool CudaForward::IsFused(int64_t rows) const {
  const cuda::LayerView& w = model_.layers[0];
  return rows <= most_fused_rows && IsOwnProduct(w.qfi, rows, cuda::GemmEpilogue::kStore) &&
         IsOwnProduct(w.o, rows, cuda::GemmEpilogue::kResidual) &&
         IsOwnProduct(w.gate_up, rows, cuda::GemmEpilogue::kSwiGlu) &&
         IsOwnProduct(w.down, rows, cuda::GemmEpilogue::kResidual);
}

// Between the products: delta = x attn_norm (from down, for the next layer) or x mlp_norm (from o),
// neither divided by the root of x's mean square, which x_squares brings to the next product. FP8:
// delta act_scale is that, and x_norm and act_squares bring what bounds it to o and down (bfloat16
// has neither).
absl::Status CudaForward::FusedLayer(const StepShape& shape, int32_t layer, cudaStream_t stream) {
  const cuda::LayerView& w = model_.layers[layer];
  const CudaActivations& a = buffers_.activations;
  const int32_t rows = shape.padded_tokens;
  const cuda::LayerView* next = layer + 1 < model_.num_layers ? &w + 1 : nullptr;
  const auto product = [&](const cuda::MatrixView& weight, const void* x) {
    return OwnProduct(weight, x, nullptr, rows);
  };
  const auto divide = [&](cuda::DecodeGemmParams& p) {  // of delta
    p.x_scale = a.act_scale;
    p.square_sums = a.x_squares;
    p.num_square_sums = static_cast<int32_t>(cuda::CeilDiv(model_.d, cuda::kSquareSumRows));
    p.eps = model_.norm_eps;
    p.norm_out = a.x_norm;
  };
  const auto add = [&](cuda::DecodeGemmParams& p, const float* next_norm, float largest_next_norm,
                       float row_norm) {
    p.epilogue = cuda::GemmEpilogue::kResidual;
    p.residual = a.x;
    p.next_norm = next_norm;
    p.out = a.delta;
    p.square_sums_out = a.x_squares;
    p.out_scale = a.act_scale;
    p.residual_norm = a.x_norm;
    p.largest_next_norm = largest_next_norm;
    p.largest_row_norm = row_norm;
  };
  cuda::DecodeGemmParams qfi = product(w.qfi, layer == 0 ? a.h : a.delta);
  if (layer == 0) {
    RETURN_IF_ERROR(Norm(w.qfi, w.attn_norm, nullptr, nullptr, false, a.x_norm, rows, stream));
    qfi.x_scale = a.h_scale;
  } else {
    divide(qfi);
  }
  qfi.out = a.qfi;
  CUDA_RETURN_IF_ERROR(cuda::DecodeGemm(qfi, stream));
  if (model_.conv_size > 0) RETURN_IF_ERROR(ShortConv(shape, layer, stream));
  RETURN_IF_ERROR(Recurrence(shape, layer, stream));

  const bool defers = DefersGNorm();
  if (!defers) RETURN_IF_ERROR(GNorm(shape, layer, stream));
  cuda::DecodeGemmParams o = product(w.o, defers ? a.o : a.h);
  if (defers) {
    o.square_sums = a.o_squares;
    o.num_square_sums = model_.d / cuda::kSumSquareGroup;
    o.eps = model_.g_norm_eps;
  } else {
    o.x_scale = a.h_scale;
  }
  add(o, w.mlp_norm, w.largest_mlp_norm, w.o_row_norm);
  o.next_squares = a.act_squares;
  CUDA_RETURN_IF_ERROR(cuda::DecodeGemm(o, stream));
  cuda::DecodeGemmParams gate_up = product(w.gate_up, a.delta);
  divide(gate_up);
  gate_up.epilogue = cuda::GemmEpilogue::kSwiGlu;
  gate_up.out = a.act;
  gate_up.squares = a.act_squares;
  CUDA_RETURN_IF_ERROR(cuda::DecodeGemm(gate_up, stream));
  cuda::DecodeGemmParams down = product(w.down, a.act);
  down.squares = a.act_squares;
  add(down, next ? next->attn_norm : nullptr, next ? next->largest_attn_norm : 0, w.down_row_norm);
  return CudaStatus(cuda::DecodeGemm(down, stream), "down product");
}

bool CudaForward::HasOwnSwiGlu(int64_t rows) const {
  return IsOwnProduct(model_.layers[0].gate_up, rows, cuda::GemmEpilogue::kSwiGlu);
}

absl::Status CudaForward::Attention(const StepShape& shape, int32_t layer, cudaStream_t stream) {
  const cuda::LayerView& w = model_.layers[layer];
  const CudaActivations& a = buffers_.activations;
  const int64_t rows = shape.padded_tokens;
  const cuda::MatrixView* before = layer > 0 ? &model_.layers[layer - 1].down : nullptr;
  RETURN_IF_ERROR(Norm(w.qfi, w.attn_norm, before, ActScale(rows), false, nullptr, rows, stream));
  RETURN_IF_ERROR(Product(w.qfi, a.h, a.h_scale, a.qfi, model_.activation_type, rows, stream));
  if (model_.conv_size > 0) RETURN_IF_ERROR(ShortConv(shape, layer, stream));
  RETURN_IF_ERROR(Recurrence(shape, layer, stream));
  const bool defers = DefersGNorm();
  if (!defers) RETURN_IF_ERROR(GNorm(shape, layer, stream));
  return UnscaledProduct(w.o, defers ? a.o : a.h, a.h_scale, a.delta, rows, stream);
}

absl::Status CudaForward::Mlp(const StepShape& shape, int32_t layer, cudaStream_t stream) {
  const cuda::LayerView& w = model_.layers[layer];
  const CudaActivations& a = buffers_.activations;
  const int64_t rows = shape.padded_tokens;
  RETURN_IF_ERROR(
      Norm(w.gate_up, w.mlp_norm, &w.o, a.h_scale, DefersGNorm(), nullptr, rows, stream));
  if (HasOwnSwiGlu(rows)) {
    cuda::DecodeGemmParams p = OwnProduct(w.gate_up, a.h, a.h_scale, rows);
    p.epilogue = cuda::GemmEpilogue::kSwiGlu;
    p.out = a.act;
    CUDA_RETURN_IF_ERROR(cuda::DecodeGemm(p, stream));
    return UnscaledProduct(w.down, a.act, nullptr, a.delta, rows, stream);
  }
  RETURN_IF_ERROR(UnscaledProduct(w.gate_up, a.h, a.h_scale, a.gate_up, rows, stream));
  cuda::SwiGluParams p;
  p.gate_up = a.gate_up;
  p.type = model_.activation_type;
  p.out = a.act;
  p.out_type = w.down.type;
  p.out_scale = a.act_scale;
  if (LeavesScales(w.gate_up, rows)) {
    p.row_scale = a.h_scale;
    p.col_scale = w.gate_up.scale;
  }
  p.rows = rows;
  p.m = model_.m;
  p.overlap = overlap_;
  CUDA_RETURN_IF_ERROR(cuda::SwiGlu(p, stream));
  return UnscaledProduct(w.down, a.act, a.act_scale, a.delta, rows, stream);
}

absl::Status CudaForward::Layers(const StepShape& shape, cudaStream_t stream) {
  cuda::EmbedParams embed;
  embed.table = model_.embeddings;
  embed.table_type = model_.activation_type;
  embed.tokens = Array<int32_t>(shape.tokens);
  embed.slots = Array<int32_t>(shape.token_slots);
  embed.last_token = buffers_.last_token;
  embed.x = buffers_.activations.x;
  embed.step = buffers_.step;
  embed.rows = shape.padded_tokens;
  embed.d = model_.d;
  CUDA_RETURN_IF_ERROR(cuda::Embed(embed, stream));
  const bool fused = IsFused(shape.padded_tokens);
  for (int32_t l = 0; l < model_.num_layers; ++l) {
    if (fused) {
      RETURN_IF_ERROR(FusedLayer(shape, l, stream));
      continue;
    }
    RETURN_IF_ERROR(Attention(shape, l, stream));
    RETURN_IF_ERROR(Mlp(shape, l, stream));
  }
  const cuda::AdvanceAgesParams ages = {buffers_.age, Array<int32_t>(shape.age_slots),
                                        Array<uint8_t>(shape.age_written), shape.age_slots.count};
  return CudaStatus(cuda::LaunchAdvanceAges(ages, stream), "ages");
}

absl::Status CudaForward::Logits(const StepShape& shape, cudaStream_t stream,
                                 const std::function<absl::Status(int32_t, int32_t)>& take) {
  const int32_t chunk = sizes_.LogitChunk();
  for (int32_t first = 0; first < shape.num_rows; first += chunk) {
    const int32_t rows = std::min(chunk, shape.num_rows - first);
    const int64_t padded = std::min<int64_t>(cuda::GemmTokenBucket(rows), chunk);
    cuda::RmsNormParams p;
    p.x = buffers_.activations.x;
    // The last layer's down product; a fused layer has added it.
    p.delta = IsFused(shape.padded_tokens) ? nullptr : buffers_.activations.delta;
    p.delta_type = model_.activation_type;
    if (p.delta) {
      ScaleDelta(model_.layers[model_.num_layers - 1].down, ActScale(shape.padded_tokens),
                 shape.padded_tokens, &p);
    }
    p.weight = model_.final_norm;
    p.row_index = Array<int32_t>(shape.row_index) + first;
    p.out = buffers_.head_in;
    p.out_type = model_.activation_type;
    p.rows = padded;
    p.d = model_.d;
    p.eps = model_.norm_eps;
    CUDA_RETURN_IF_ERROR(cuda::RmsNorm(p, stream));
    RETURN_IF_ERROR(Product(model_.lm_head, buffers_.head_in, nullptr, buffers_.logits, DType::kF32,
                            padded, stream));
    RETURN_IF_ERROR(take(first, rows));
  }
  return absl::OkStatus();
}

absl::Status CudaForward::Sample(const StepShape& shape, int32_t first, int32_t rows,
                                 cudaStream_t stream) {
  cuda::SampleParams p;
  p.logits = buffers_.logits;
  p.rows = Array<cuda::LogitRow>(shape.rows) + first;
  p.bans = Array<int32_t>(shape.bans);
  p.slots = buffers_.slot_params;
  p.bias = buffers_.bias;
  p.token_flags = buffers_.token_flags;
  p.last_token = buffers_.last_token;
  p.num_generated = buffers_.num_generated;
  p.results[0] = buffers_.results[0];
  p.results[1] = buffers_.results[1];
  p.step = buffers_.step;
  p.num_rows = rows;
  p.vocab = model_.vocab;
  p.overlap = overlap_;
  return CudaStatus(cuda::Sample(p, stream), "sampling");
}

absl::Status CudaForward::SampleLogits(const StepShape& shape, int32_t rows, cudaStream_t stream) {
  return Sample(shape, 0, rows, stream);
}

absl::Status CudaForward::SampleRows(const StepShape& shape, cudaStream_t stream) {
  return Logits(shape, stream,
                [&](int32_t first, int32_t rows) { return Sample(shape, first, rows, stream); });
}

}  // namespace hgrn2
