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

// What FP8 products need at load, on the device. Everything is enqueued in one stream, so layers
// take turns with `factor`.
struct Fp8Scratch {
  float* factor = nullptr;     // [m] BalanceSwiGlu's
  float* row_norms = nullptr;  // [layers][2]: o, down
  DeviceMemory memory;

  absl::Status Allocate(const ModelConfig& c, cudaStream_t stream) {
    RETURN_IF_ERROR(memory.Take(&factor, c.intermediate_size, "activation ranges"));
    RETURN_IF_ERROR(memory.Take(&row_norms, 2 * c.num_layers, "row norms"));
    return CudaStatus(cudaMemsetAsync(row_norms, 0, 2 * c.num_layers * sizeof(float), stream),
                      "row norms");
  }
  // Once everything enqueued has run.
  absl::Status ReadRowNorms(std::vector<cuda::LayerView>* layers) const {
    std::vector<float> norms(2 * layers->size());
    CUDA_RETURN_IF_ERROR(
        cudaMemcpy(norms.data(), row_norms, norms.size() * sizeof(float), cudaMemcpyDeviceToHost));
    for (size_t l = 0; l < layers->size(); ++l) {
      (*layers)[l].o_row_norm = norms[2 * l], (*layers)[l].down_row_norm = norms[2 * l + 1];
    }
    return absl::OkStatus();
  }
};

// fold: g_norm's weight goes into o's columns. fp8: null if `type` is not that; balances gate_up
// and down and measures rows. REQUIRES: out's norms.
absl::Status UploadProducts(const LayerWeights& w, int32_t l, DType type, bool fold,
                            WeightUploader& upload, Fp8Scratch* fp8, cuda::LayerView* out) {
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
  if (fp8) {
    CUDA_RETURN_IF_ERROR(
        cuda::BalanceSwiGlu({out->gate_up, out->mlp_norm, fp8->factor}, upload.stream()));
  }
  RETURN_IF_ERROR(
      upload.Matrix(down, type, "down projection", &out->down, fp8 ? fp8->factor : nullptr));
  if (!fp8) return absl::OkStatus();
  float* norms = fp8->row_norms + 2 * l;
  CUDA_RETURN_IF_ERROR(cuda::LargestRowNorm(out->o, out->g_norm, norms, upload.stream()));
  return CudaStatus(cuda::LargestRowNorm(out->down, nullptr, norms + 1, upload.stream()),
                    "row norms");
}

absl::Status UploadLayer(const ModelWeights& weights, int32_t l, DType type, WeightUploader& upload,
                         Fp8Scratch* fp8, cuda::LayerView* out) {
  const LayerWeights& w = weights.layers[l];
  const int64_t d = weights.config.hidden_size;
  const std::vector<float> attn_norm = OrOnes(w.attn_norm, d), mlp_norm = OrOnes(w.mlp_norm, d);
  // In bfloat16 a product's input may be the recurrence's output as it is.
  const bool fold = type == DType::kBF16 && w.g_norm;
  RETURN_IF_ERROR(upload.Floats(attn_norm, "attn_norm", &out->attn_norm));
  RETURN_IF_ERROR(upload.Floats(mlp_norm, "mlp_norm", &out->mlp_norm));
  RETURN_IF_ERROR(upload.Floats(OrOnes(fold ? TensorView() : w.g_norm, d), "g_norm", &out->g_norm));
  out->largest_attn_norm = Largest(attn_norm), out->largest_mlp_norm = Largest(mlp_norm);
  RETURN_IF_ERROR(UploadProducts(w, l, type, fold, upload, fp8, out));
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
  if (fp8) RETURN_IF_ERROR(scratch.Allocate(c, stream));
  model->layers_.resize(c.num_layers);
  for (int32_t l = 0; l < c.num_layers; ++l) {
    RETURN_IF_ERROR(UploadLayer(weights, l, fp8 ? DType::kF8E4M3 : activation, upload,
                                fp8 ? &scratch : nullptr, &model->layers_[l]));
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
  if (fp8) RETURN_IF_ERROR(scratch.ReadRowNorms(&model->layers_));
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
