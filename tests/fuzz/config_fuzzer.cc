// config.json, generation_config.json and model.safetensors.index.json from memory.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "engine/loader/model_config.h"
#include "engine/loader/shards.h"

namespace {

void CheckConfig(const hgrn2::ModelConfig& c) {
  HGRN2_CHECK(c.hidden_size > 0 && c.num_layers > 0 && c.vocab_size > 0 && c.intermediate_size > 0);
  HGRN2_CHECK(c.num_heads > 0 && c.num_heads * c.head_dim == c.hidden_size);
  HGRN2_CHECK(c.conv_size >= 0 && c.norm_eps > 0 && c.norm_eps <= 1);
  HGRN2_CHECK(c.bos_token_id >= -1 && c.bos_token_id < c.vocab_size);
  for (const int32_t id : c.eos_token_ids) HGRN2_CHECK(id >= 0 && id < c.vocab_size);
  HGRN2_CHECK(c.StateSize() > 0 && c.ConvStateSize() >= 0 && c.NumParameters() > 0);
}

void CheckDefaults(const hgrn2::GenerationDefaults& d) {
  HGRN2_CHECK(!d.temperature || (*d.temperature >= 0 && *d.temperature <= 100));
  HGRN2_CHECK(!d.top_p || (*d.top_p > 0 && *d.top_p <= 1));
  HGRN2_CHECK(!d.min_p || (*d.min_p >= 0 && *d.min_p <= 1));
  HGRN2_CHECK(!d.max_new_tokens || *d.max_new_tokens > 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto config = hgrn2::ParseModelConfig(json, "config.json");
  if (config.ok()) CheckConfig(*config);
  const auto defaults = hgrn2::ParseGenerationConfig(json, "generation_config.json");
  if (defaults.ok()) CheckDefaults(*defaults);
  const auto index = hgrn2::ParseShardIndex(json, "model.safetensors.index.json");
  if (index.ok()) {
    for (const auto& [tensor, file] : *index) HGRN2_CHECK(file.find('/') == std::string::npos);
  }
  return 0;
}
