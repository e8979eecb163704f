// The shape of an HGRN2 checkpoint: config.json as the reference implementation (fla, model_type
// "hgrn2") saves it. See docs/model.md for the meaning of each key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace hgrn2 {

// Valid by construction when it comes from ParseModelConfig.
struct ModelConfig {
  int32_t hidden_size = 0;        // d
  int32_t num_layers = 0;         // L
  int32_t num_heads = 0;          // H
  int32_t head_dim = 0;           // K = V = d / H (expand_ratio)
  int32_t intermediate_size = 0;  // m
  int32_t vocab_size = 0;
  int32_t conv_size = 0;  // 0: no short convolution
  bool use_lower_bound = true;
  bool elementwise_affine = true;
  bool tie_word_embeddings = false;
  float norm_eps = 1e-6f;
  DType torch_dtype = DType::kF32;  // informative; the file's own dtypes decide
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none

  // L * d * K: numbers a sequence carries, apart from the short convolution's inputs.
  int64_t StateSize() const { return static_cast<int64_t>(num_layers) * hidden_size * head_dim; }
  // L * 3 * (conv_size - 1) * d.
  int64_t ConvStateSize() const {
    return conv_size > 0 ? static_cast<int64_t>(num_layers) * 3 * (conv_size - 1) * hidden_size : 0;
  }
  int64_t NumParameters() const;
};

// Refuses, with one sentence naming `file` and the key: bad JSON, wrong types, sizes out of range,
// H * K != hidden_size, another model_type or activation, hybrid attention, attention residuals.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view file);

// generation_config.json: defaults for requests that leave a field unset. -1 / NaN-free optionals.
struct GenerationDefaults {
  std::optional<bool> do_sample;  // false: greedy unless a request says otherwise
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<int32_t> max_new_tokens;
  std::vector<int32_t> eos_token_ids;  // empty: config.json's
};
absl::StatusOr<GenerationDefaults> ParseGenerationConfig(std::string_view json,
                                                         std::string_view file);

}  // namespace hgrn2
