#include "bench/cuda/shared_weights.h"

#include <algorithm>
#include <random>

#include "base/check.h"

namespace hgrn2::bench {

ModelConfig NamedShape(std::string_view name) {
  ModelConfig c;
  c.vocab_size = 32000;
  c.head_dim = 128;
  c.torch_dtype = DType::kBF16;
  if (name == "1.3b") {
    c.num_layers = 24, c.hidden_size = 2048, c.intermediate_size = 5632;
  } else {
    HGRN2_CHECK(name == "2.9b", "the models are 1.3b and 2.9b");
    c.num_layers = 32, c.hidden_size = 2560, c.intermediate_size = 6912;
  }
  c.num_heads = c.hidden_size / c.head_dim;
  return c;
}

ModelWeights SharedRandomWeights(const ModelConfig& c) {
  const int64_t d = c.hidden_size, m = c.intermediate_size, vocab = c.vocab_size;
  // Normal(0, 0.02) in bfloat16; a prime number of values tiled, so that rows differ.
  const int64_t size = std::max(vocab * d, 2 * m * d);
  auto values = std::make_shared<std::vector<uint16_t>>(size);
  constexpr int64_t kPeriod = 1048573;
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0, 0.02f);
  for (int64_t i = 0; i < std::min(size, kPeriod); ++i) {
    (*values)[i] = static_cast<uint16_t>(__builtin_bit_cast(uint32_t, normal(rng)) >> 16);
  }
  for (int64_t i = kPeriod; i < size; ++i) (*values)[i] = (*values)[i - kPeriod];
  const auto view = [&](std::vector<int64_t> shape) {
    return TensorView{values->data(), DType::kBF16, std::move(shape)};
  };
  ModelWeights w;
  w.config = c;
  w.embeddings = view({vocab, d});
  w.lm_head = view({vocab, d});
  for (int32_t l = 0; l < c.num_layers; ++l) {
    LayerWeights layer;
    layer.q_proj = layer.f_proj = layer.i_proj = layer.o_proj = view({d, d});
    layer.gate_proj = layer.up_proj = view({m, d});
    layer.down_proj = view({d, m});
    w.layers.push_back(std::move(layer));
  }
  w.lower_bounds.assign(static_cast<size_t>(c.num_layers) * d, 0.0f);
  for (int64_t i = d; i < c.num_layers * d; ++i) {
    w.lower_bounds[i] = 0.9f * static_cast<float>(i / d) / static_cast<float>(c.num_layers);
  }
  w.hash = "0000000000000000";
  w.storage = values;
  return w;
}

}  // namespace hgrn2::bench
