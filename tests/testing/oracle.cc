#include "tests/testing/oracle.h"

namespace hgrn2::testing {
namespace {

reference::Layer MakeLayer(const LayerWeights& w, const float* lower_bound, int64_t d) {
  return {.attn_norm = w.attn_norm.ToFloat(),
          .q_proj = w.q_proj.ToFloat(),
          .f_proj = w.f_proj.ToFloat(),
          .i_proj = w.i_proj.ToFloat(),
          .o_proj = w.o_proj.ToFloat(),
          .q_conv = w.q_conv.ToFloat(),
          .f_conv = w.f_conv.ToFloat(),
          .i_conv = w.i_conv.ToFloat(),
          .g_norm = w.g_norm.ToFloat(),
          .lower_bound = {lower_bound, lower_bound + d},
          .mlp_norm = w.mlp_norm.ToFloat(),
          .gate_proj = w.gate_proj.ToFloat(),
          .up_proj = w.up_proj.ToFloat(),
          .down_proj = w.down_proj.ToFloat()};
}

}  // namespace

reference::Model MakeOracle(const ModelWeights& weights) {
  const ModelConfig& c = weights.config;
  reference::Model model;
  model.shape = {.hidden_size = c.hidden_size,
                 .num_layers = c.num_layers,
                 .num_heads = c.num_heads,
                 .head_dim = c.head_dim,
                 .intermediate_size = c.intermediate_size,
                 .vocab_size = c.vocab_size,
                 .conv_size = c.conv_size,
                 .norm_eps = c.norm_eps};
  model.embeddings = weights.embeddings.ToFloat();
  for (int32_t l = 0; l < c.num_layers; ++l) {
    model.layers.push_back(MakeLayer(weights.layers[l],
                                     weights.lower_bounds.data() + int64_t{l} * c.hidden_size,
                                     c.hidden_size));
  }
  model.norm = weights.norm.ToFloat();
  model.lm_head = weights.lm_head.ToFloat();
  return model;
}

}  // namespace hgrn2::testing
