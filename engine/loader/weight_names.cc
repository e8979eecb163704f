#include "engine/loader/weight_names.h"

#include <fmt/format.h>

#include <utility>

namespace hgrn2 {
namespace {

class SlotList {
 public:
  explicit SlotList(ModelWeights* weights) : weights_(*weights), config_(weights->config) {}

  void AddLayer(int32_t index) {
    LayerWeights& layer = weights_.layers[index];
    const int64_t d = config_.hidden_size;
    const int64_t m = config_.intermediate_size;
    const auto add = [&](const char* name, std::vector<int64_t> shape, TensorRole role,
                         TensorView* view) {
      Add(fmt::format("model.layers.{}.{}.weight", index, name), std::move(shape), role, view);
    };
    add("attn_norm", {d}, TensorRole::kNorm, &layer.attn_norm);
    add("attn.q_proj", {d, d}, TensorRole::kProjection, &layer.q_proj);
    add("attn.f_proj", {d, d}, TensorRole::kProjection, &layer.f_proj);
    add("attn.i_proj", {d, d}, TensorRole::kProjection, &layer.i_proj);
    if (config_.conv_size > 0) {
      add("attn.q_conv1d", {d, 1, config_.conv_size}, TensorRole::kConv, &layer.q_conv);
      add("attn.f_conv1d", {d, 1, config_.conv_size}, TensorRole::kConv, &layer.f_conv);
      add("attn.i_conv1d", {d, 1, config_.conv_size}, TensorRole::kConv, &layer.i_conv);
    }
    if (config_.elementwise_affine) add("attn.g_norm", {d}, TensorRole::kNorm, &layer.g_norm);
    add("attn.o_proj", {d, d}, TensorRole::kProjection, &layer.o_proj);
    add("mlp_norm", {d}, TensorRole::kNorm, &layer.mlp_norm);
    add("mlp.gate_proj", {m, d}, TensorRole::kProjection, &layer.gate_proj);
    add("mlp.up_proj", {m, d}, TensorRole::kProjection, &layer.up_proj);
    add("mlp.down_proj", {d, m}, TensorRole::kProjection, &layer.down_proj);
  }

  void Add(std::string name, std::vector<int64_t> shape, TensorRole role, TensorView* view) {
    slots_.push_back({std::move(name), std::move(shape), role, view});
  }

  std::vector<TensorSlot> Take() { return std::move(slots_); }

 private:
  ModelWeights& weights_;
  const ModelConfig& config_;
  std::vector<TensorSlot> slots_;
};

}  // namespace

std::vector<TensorSlot> TensorSlots(ModelWeights* weights, TensorView* lower_bounds) {
  const ModelConfig& config = weights->config;
  const int64_t d = config.hidden_size;
  weights->layers.resize(config.num_layers);
  SlotList list(weights);
  list.Add("model.embeddings.weight", {config.vocab_size, d}, TensorRole::kEmbedding,
           &weights->embeddings);
  if (config.use_lower_bound) {
    list.Add("model.lower_bounds", {config.num_layers, d}, TensorRole::kLowerBounds, lower_bounds);
  }
  for (int32_t l = 0; l < config.num_layers; ++l) list.AddLayer(l);
  list.Add("model.norm.weight", {d}, TensorRole::kNorm, &weights->norm);
  if (!config.tie_word_embeddings) {
    list.Add("lm_head.weight", {config.vocab_size, d}, TensorRole::kHead, &weights->lm_head);
  }
  return list.Take();
}

}  // namespace hgrn2
