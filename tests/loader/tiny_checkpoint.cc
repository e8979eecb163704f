#include "tests/loader/tiny_checkpoint.h"

#include <cmath>

#include "tests/testing/safetensors_builder.h"

namespace hgrn2 {
namespace {

bool InFirstShard(const std::string& name) { return name.find("layers.1") == std::string::npos; }

}  // namespace

TinyCheckpoint::TinyCheckpoint(int options, DType dtype) {
  config = {{"model_type", "\"hgrn2\""}, {"hidden_size", "8"},  {"num_hidden_layers", "2"},
            {"num_heads", "2"},          {"expand_ratio", "4"}, {"intermediate_size", "12"},
            {"vocab_size", "10"},        {"eos_token_id", "2"}, {"bos_token_id", "1"}};
  const auto set = [&](Option option, const char* key, const char* value) {
    if (options & option) config[key] = value;
  };
  set(kTied, "tie_word_embeddings", "true");
  set(kConv, "use_short_conv", "true");
  set(kNoLowerBound, "use_lower_bound", "false");
  set(kNoAffine, "elementwise_affine", "false");

  Add("model.embeddings.weight", dtype, {10, 8});
  if (!(options & kNoLowerBound)) Add("model.lower_bounds", dtype, {2, 8});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    Add(layer + "attn_norm.weight", dtype, {8});
    for (const std::string name : {"q", "f", "i"}) {
      Add(layer + "attn." + name + "_proj.weight", dtype, {8, 8});
      if (options & kConv) Add(layer + "attn." + name + "_conv1d.weight", dtype, {8, 1, 4});
    }
    if (!(options & kNoAffine)) Add(layer + "attn.g_norm.weight", dtype, {8});
    Add(layer + "attn.o_proj.weight", dtype, {8, 8});
    Add(layer + "mlp_norm.weight", dtype, {8});
    Add(layer + "mlp.gate_proj.weight", dtype, {12, 8});
    Add(layer + "mlp.up_proj.weight", dtype, {12, 8});
    Add(layer + "mlp.down_proj.weight", dtype, {8, 12});
  }
  Add("model.norm.weight", dtype, {8});
  if (!(options & kTied)) Add("lm_head.weight", dtype, {10, 8});
}

void TinyCheckpoint::Add(const std::string& name, DType dtype, const std::vector<int64_t>& shape) {
  int64_t size = 1;
  for (const int64_t n : shape) size *= n;
  TinyTensor tensor{dtype, shape, std::vector<float>(size)};
  // Distinct per tensor and exact in every dtype: multiples of 1/16 in (-8, 8).
  const int offset = static_cast<int>(tensors.size()) * 7;
  for (int64_t j = 0; j < size; ++j) {
    tensor.values[j] = static_cast<float>((offset + j * 5) % 251 - 125) / 16;
  }
  tensors[name] = tensor;
}

std::string TinyCheckpoint::ConfigJson() const {
  std::string json;
  for (const auto& [key, value] : config) {
    json += (json.empty() ? "{\"" : ",\"") + key + "\":" + value;
  }
  return json + "}";
}

std::string TinyCheckpoint::Safetensors(const std::string& part) const {
  testing::SafetensorsBuilder builder;
  for (const auto& [name, tensor] : tensors) {
    if (name.find(part) == std::string::npos) continue;
    builder.Add(name, tensor.dtype, tensor.shape, tensor.values);
  }
  return builder.Build();
}

void TinyCheckpoint::Write(const testing::TempDir& dir) const {
  dir.Write("config.json", ConfigJson());
  dir.Write("model.safetensors", Safetensors());
}

void TinyCheckpoint::WriteSharded(const testing::TempDir& dir) const {
  testing::SafetensorsBuilder shards[2];
  std::string map;
  for (const auto& [name, tensor] : tensors) {
    const int shard = InFirstShard(name) ? 0 : 1;
    shards[shard].Add(name, tensor.dtype, tensor.shape, tensor.values);
    map += (map.empty() ? "\"" : ",\"") + name + "\":\"model-0000" + std::to_string(shard + 1) +
           "-of-00002.safetensors\"";
  }
  dir.Write("config.json", ConfigJson());
  dir.Write("model-00001-of-00002.safetensors", shards[0].Build());
  dir.Write("model-00002-of-00002.safetensors", shards[1].Build());
  dir.Write("model.safetensors.index.json",
            "{\"metadata\":{\"total_size\":1},\"weight_map\":{" + map + "}}");
}

}  // namespace hgrn2
