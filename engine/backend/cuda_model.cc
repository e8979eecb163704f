#include "engine/backend/cuda_model.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/backend/cuda_status.h"
#include "engine/backend/cuda_weight_uploader.h"
#include "kernels/cuda/gemm/fp8_range.h"

namespace hgrn2 {
namespace {

std::vector<float> OrOnes(const TensorView& view, int64_t size) {
  return view ? view.ToFloat() : std::vector<float>(size, 1.0f);
}

// o_proj diag(g_norm), in float32.
std::vector<float> FoldColumns(const TensorView& matrix, const TensorView& scale) {
  std::vector<float> values = matrix.ToFloat();
  const std::vector<float> factors = scale.ToFloat();
  for (size_t i = 0; i < values.size(); i += factors.size()) {
    for (size_t j = 0; j < factors.size(); ++j) values[i + j] *= factors[j];
  }
  return values;
}

float Largest(const std::vector<float>& values) {
  float largest = 0;
  for (const float v : values) largest = std::max(largest, std::abs(v));
  return largest;
}

// What an FP8 layer needs at load, on the device. Everything is enqueued in one stream, so layers
// take turns with it.
struct Fp8Scratch {
  float* factor = nullptr;     // [m] BalanceSwiGlu's
  float* row_norms = nullptr;  // [2]: o, down
  DeviceMemory memory;

  absl::Status Allocate(const ModelConfig& c) {
    RETURN_IF_ERROR(memory.Take(&factor, c.intermediate_size, "activation ranges"));
    return memory.Take(&row_norms, 2, "row norms");
  }
};

// The layer's products, in FP8: gate_up and down balanced. REQUIRES: out's norms.
absl::Status UploadFp8Products(const LayerWeights& w, WeightUploader& upload, Fp8Scratch& scratch,
                               cuda::LayerView* out) {
  constexpr DType kType = DType::kF8E4M3;
  const std::array qfi = {&w.q_proj, &w.f_proj, &w.i_proj};
  const std::array gate_up = {&w.gate_proj, &w.up_proj};
  const std::array o = {&w.o_proj}, down = {&w.down_proj};
  const cudaStream_t stream = upload.stream();
  RETURN_IF_ERROR(upload.Matrix(qfi, kType, "q, f and i projections", &out->qfi));
  RETURN_IF_ERROR(upload.Matrix(o, kType, "o projection", &out->o));
  RETURN_IF_ERROR(upload.Matrix(gate_up, kType, "gate and up projections", &out->gate_up));
  CUDA_RETURN_IF_ERROR(cuda::BalanceSwiGlu({out->gate_up, out->mlp_norm, scratch.factor}, stream));
  RETURN_IF_ERROR(upload.Matrix(down, kType, "down projection", &out->down, scratch.factor));
  CUDA_RETURN_IF_ERROR(cudaMemsetAsync(scratch.row_norms, 0, 2 * sizeof(float), stream));
  CUDA_RETURN_IF_ERROR(cuda::LargestRowNorm(out->o, out->g_norm, scratch.row_norms, stream));
  CUDA_RETURN_IF_ERROR(cuda::LargestRowNorm(out->down, nullptr, scratch.row_norms + 1, stream));
  float norms[2];
  CUDA_RETURN_IF_ERROR(
      cudaMemcpyAsync(norms, scratch.row_norms, sizeof(norms), cudaMemcpyDeviceToHost, stream));
  CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream));
  out->o_row_norm = norms[0], out->down_row_norm = norms[1];
  return absl::OkStatus();
}

// Likewise in bfloat16 or float32. fold: g_norm's weight goes into o's columns.
absl::Status UploadProducts(const LayerWeights& w, DType type, bool fold, WeightUploader& upload,
                            cuda::LayerView* out) {
  const std::array qfi = {&w.q_proj, &w.f_proj, &w.i_proj};
  const std::array gate_up = {&w.gate_proj, &w.up_proj};
  std::vector<float> folded;
  TensorView folded_o;
  if (fold) {
    folded = FoldColumns(w.o_proj, w.g_norm);
    folded_o = {folded.data(), DType::kF32, w.o_proj.shape};
  }
  const std::array o = {fold ? &folded_o : &w.o_proj}, down = {&w.down_proj};
  RETURN_IF_ERROR(upload.Matrix(qfi, type, "q, f and i projections", &out->qfi));
  RETURN_IF_ERROR(upload.Matrix(o, type, "o projection", &out->o));
  RETURN_IF_ERROR(upload.Matrix(gate_up, type, "gate and up projections", &out->gate_up));
  return upload.Matrix(down, type, "down projection", &out->down);
}

// fp8: null for `type` products.
absl::Status UploadLayer(const ModelWeights& weights, int32_t l, DType type, WeightUploader& upload,
                         Fp8Scratch* fp8, cuda::LayerView* out) {
  const LayerWeights& w = weights.layers[l];
  const int64_t d = weights.config.hidden_size;
  const std::vector<float> attn_norm = OrOnes(w.attn_norm, d), mlp_norm = OrOnes(w.mlp_norm, d);
  // In bfloat16 a product's input may be the recurrence's output as it is.
  const bool fold = !fp8 && type == DType::kBF16 && w.g_norm;
  RETURN_IF_ERROR(upload.Floats(attn_norm, "attn_norm", &out->attn_norm));
  RETURN_IF_ERROR(upload.Floats(mlp_norm, "mlp_norm", &out->mlp_norm));
  RETURN_IF_ERROR(upload.Floats(OrOnes(fold ? TensorView() : w.g_norm, d), "g_norm", &out->g_norm));
  out->largest_attn_norm = Largest(attn_norm), out->largest_mlp_norm = Largest(mlp_norm);
  RETURN_IF_ERROR(fp8 ? UploadFp8Products(w, upload, *fp8, out)
                      : UploadProducts(w, type, fold, upload, out));
  const auto lb = weights.lower_bounds.begin() + l * d;
  RETURN_IF_ERROR(upload.Floats(std::vector<float>(lb, lb + d), "lower bounds", &out->lower_bound));
  if (weights.config.conv_size > 0) {
    std::vector<float> conv;
    for (const TensorView* part : {&w.q_conv, &w.f_conv, &w.i_conv}) {
      const std::vector<float> values = part->ToFloat();
      conv.insert(conv.end(), values.begin(), values.end());
    }
    RETURN_IF_ERROR(upload.Floats(conv, "short convolution", &out->conv));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t CudaModel::WeightBytes(const ModelConfig& c, DType activation, bool fp8) {
  const int64_t d = c.hidden_size, m = c.intermediate_size, size = SizeOf(activation);
  const int64_t matrices = 4 * d * d + 3 * m * d;
  const int64_t rows = 4 * d + 2 * m + d;
  const int64_t layer = (fp8 ? matrices + 4 * rows : matrices * size) +
                        4 * (4 * d + 3 * d * static_cast<int64_t>(c.conv_size));
  const int64_t tables = (c.tie_word_embeddings ? 1 : 2) * int64_t{c.vocab_size} * d * size;
  return c.num_layers * layer + tables + 4 * d;
}

absl::StatusOr<std::unique_ptr<CudaModel>> CudaModel::Create(const ModelWeights& weights,
                                                             DType activation, bool fp8,
                                                             cudaStream_t stream) {
  std::unique_ptr<CudaModel> model(new CudaModel);
  const ModelConfig& c = weights.config;
  WeightUploader upload(&model->memory_, stream);
  RETURN_IF_ERROR(upload.Init());
  Fp8Scratch scratch;
  if (fp8) RETURN_IF_ERROR(scratch.Allocate(c));
  model->layers_.resize(c.num_layers);
  for (int32_t l = 0; l < c.num_layers; ++l) {
    RETURN_IF_ERROR(
        UploadLayer(weights, l, activation, upload, fp8 ? &scratch : nullptr, &model->layers_[l]));
  }
  cuda::ModelView& v = model->view_;
  cuda::MatrixView embeddings;
  const std::array table = {&weights.embeddings};
  const std::array head = {&weights.lm_head};
  RETURN_IF_ERROR(upload.Matrix(table, activation, "embeddings", &embeddings));
  v.lm_head = embeddings;
  if (!c.tie_word_embeddings) {
    RETURN_IF_ERROR(upload.Matrix(head, activation, "lm_head", &v.lm_head));
  }
  RETURN_IF_ERROR(upload.Floats(OrOnes(weights.norm, c.hidden_size), "final norm", &v.final_norm));
  RETURN_IF_ERROR(upload.Finish());
  v.d = c.hidden_size, v.m = c.intermediate_size;
  v.heads = c.num_heads, v.head_dim = c.head_dim;
  v.vocab = c.vocab_size, v.num_layers = c.num_layers, v.conv_size = c.conv_size;
  v.norm_eps = c.norm_eps;
  v.g_norm_in_o = !fp8 && activation == DType::kBF16;
  v.activation_type = activation;
  v.embeddings = embeddings.data;
  v.layers = model->layers_.data();
  return model;
}

}  // namespace hgrn2
