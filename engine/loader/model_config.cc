#include "engine/loader/model_config.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "base/status.h"
#include "engine/loader/json.h"
#include "engine/loader/json_fields.h"

namespace hgrn2 {
namespace {

constexpr JsonLimits kConfigLimits = {.max_bytes = 1 << 20, .max_depth = 32};

// Far above any published model, and small enough that no product of sizes overflows 64 bits.
constexpr int32_t kMaxHiddenSize = 1 << 16;
constexpr int32_t kMaxLayers = 1024;
constexpr int32_t kMaxHeadDim = 1024;
constexpr int32_t kMaxIntermediateSize = 1 << 20;
constexpr int32_t kMaxVocabSize = 1 << 22;
constexpr int32_t kMaxConvSize = 64;

absl::Status CheckArchitecture(const JsonFields& fields, std::string_view file) {
  ASSIGN_OR_RETURN(const std::string model_type, fields.String("model_type", "hgrn2"));
  if (model_type != "hgrn2") {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: model_type must be \"hgrn2\", got \"{}\"", file, Printable(model_type));
  }
  ASSIGN_OR_RETURN(const std::string hidden_act, fields.String("hidden_act", "swish"));
  if (hidden_act != "swish" && hidden_act != "silu") {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: hidden_act must be \"swish\" or \"silu\", got \"{}\"", file,
                      Printable(hidden_act));
  }
  if (fields.Find("attn") != nullptr) {
    return MakeStatus(
        absl::StatusCode::kInvalidArgument,
        "{}: attn must be null: hybrid models with attention layers are not supported", file);
  }
  if (fields.Find("attnres_block_size") != nullptr) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: attnres_block_size must be null: attention residuals are not supported",
                      file);
  }
  return absl::OkStatus();
}

// Either of num_heads and expand_ratio gives the other; K = expand_ratio.
absl::Status ReadHeads(const JsonFields& fields, std::string_view file, ModelConfig* config) {
  const int32_t d = config->hidden_size;
  ASSIGN_OR_RETURN(const auto heads, fields.Int("num_heads", 1, kMaxHiddenSize));
  ASSIGN_OR_RETURN(const auto ratio, fields.Int("expand_ratio", 1, kMaxHeadDim));
  const int64_t head_dim = ratio ? *ratio : heads ? d / *heads : 128;
  const int64_t num_heads = heads ? *heads : d / head_dim;
  if (num_heads * head_dim != d) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: num_heads x expand_ratio must be hidden_size ({}), got {} x {}", file, d,
                      num_heads, head_dim);
  }
  if (head_dim > kMaxHeadDim) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: num_heads {} gives heads of {}, the limit is {}", file, num_heads,
                      head_dim, kMaxHeadDim);
  }
  config->num_heads = static_cast<int32_t>(num_heads);
  config->head_dim = static_cast<int32_t>(head_dim);
  return absl::OkStatus();
}

absl::Status ReadIntermediateSize(const JsonFields& fields, std::string_view file,
                                  ModelConfig* config) {
  ASSIGN_OR_RETURN(const auto ratio, fields.Number("hidden_ratio", 0, 1024, /*open_min=*/true));
  ASSIGN_OR_RETURN(const auto size, fields.Int("intermediate_size", 1, kMaxIntermediateSize));
  if (size) {
    config->intermediate_size = static_cast<int32_t>(*size);
    return absl::OkStatus();
  }
  // As the reference computes it, truncation included.
  const int64_t wanted = static_cast<int64_t>(config->hidden_size * ratio.value_or(4) * 2 / 3);
  const int64_t rounded = 256 * ((wanted + 255) / 256);
  if (rounded < 1 || rounded > kMaxIntermediateSize) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: hidden_ratio {} gives intermediate_size {}, which must be in [1, {}]",
                      file, ratio.value_or(4), rounded, kMaxIntermediateSize);
  }
  config->intermediate_size = static_cast<int32_t>(rounded);
  return absl::OkStatus();
}

absl::Status ReadSizes(const JsonFields& fields, std::string_view file, ModelConfig* config) {
  ASSIGN_OR_RETURN(const auto hidden, fields.Int("hidden_size", 1, kMaxHiddenSize));
  ASSIGN_OR_RETURN(const auto layers, fields.Int("num_hidden_layers", 1, kMaxLayers));
  ASSIGN_OR_RETURN(const auto vocab, fields.Int("vocab_size", 1, kMaxVocabSize));
  config->hidden_size = static_cast<int32_t>(hidden.value_or(2048));
  config->num_layers = static_cast<int32_t>(layers.value_or(24));
  config->vocab_size = static_cast<int32_t>(vocab.value_or(32000));
  RETURN_IF_ERROR(ReadHeads(fields, file, config));
  RETURN_IF_ERROR(ReadIntermediateSize(fields, file, config));

  ASSIGN_OR_RETURN(const auto use_short_conv, fields.Bool("use_short_conv"));
  ASSIGN_OR_RETURN(const auto conv_size, fields.Int("conv_size", 1, kMaxConvSize));
  config->conv_size =
      use_short_conv.value_or(false) ? static_cast<int32_t>(conv_size.value_or(4)) : 0;
  return absl::OkStatus();
}

absl::Status ReadDType(const JsonFields& fields, std::string_view file, ModelConfig* config) {
  // transformers renamed the key in version 5.
  const char* key = fields.Find("torch_dtype") != nullptr ? "torch_dtype" : "dtype";
  ASSIGN_OR_RETURN(const std::string name, fields.String(key, Name(DType::kF32)));
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == Name(dtype)) {
      config->torch_dtype = dtype;
      return absl::OkStatus();
    }
  }
  return MakeStatus(absl::StatusCode::kInvalidArgument,
                    "{}: {} must be \"float32\", \"float16\" or \"bfloat16\", got \"{}\"", file,
                    key, Printable(name));
}

absl::Status ReadOptions(const JsonFields& fields, ModelConfig* config) {
  ASSIGN_OR_RETURN(const auto use_lower_bound, fields.Bool("use_lower_bound"));
  ASSIGN_OR_RETURN(const auto elementwise_affine, fields.Bool("elementwise_affine"));
  ASSIGN_OR_RETURN(const auto tie, fields.Bool("tie_word_embeddings"));
  ASSIGN_OR_RETURN(const auto eps, fields.Number("norm_eps", 1e-12, 1));
  config->use_lower_bound = use_lower_bound.value_or(true);
  config->elementwise_affine = elementwise_affine.value_or(true);
  config->tie_word_embeddings = tie.value_or(false);
  config->norm_eps = static_cast<float>(eps.value_or(1e-6));

  // An id outside the vocabulary can never be produced, so a config with one is of another model.
  const int32_t max_id = config->vocab_size - 1;
  ASSIGN_OR_RETURN(const auto bos, fields.Int("bos_token_id", 0, max_id));
  ASSIGN_OR_RETURN(config->eos_token_ids, fields.TokenIds("eos_token_id", max_id));
  config->bos_token_id = static_cast<int32_t>(bos.value_or(-1));
  return absl::OkStatus();
}

template <typename To, typename From>
std::optional<To> Cast(const std::optional<From>& value) {
  if (!value) return std::nullopt;
  return static_cast<To>(*value);
}

// A double above 0 can round to a float of 0, which "(0, ..." excludes.
std::optional<float> PositiveFloat(const std::optional<double>& value) {
  if (!value) return std::nullopt;
  return std::max(std::numeric_limits<float>::min(), static_cast<float>(*value));
}

}  // namespace

int64_t ModelConfig::NumParameters() const {
  const int64_t d = hidden_size;
  const int64_t m = intermediate_size;
  const int64_t projections = 4 * d * d + 3 * d * m;
  const int64_t norms = (elementwise_affine ? 3 : 2) * d;
  const int64_t convolutions = 3 * d * conv_size;
  const int64_t vocabulary = (tie_word_embeddings ? 1 : 2) * d * vocab_size;
  return num_layers * (projections + norms + convolutions + (use_lower_bound ? d : 0)) +
         vocabulary + d;
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view file) {
  ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(json, file, kConfigLimits));
  const JsonFields fields(object, file);
  ModelConfig config;
  RETURN_IF_ERROR(CheckArchitecture(fields, file));
  RETURN_IF_ERROR(ReadSizes(fields, file, &config));
  RETURN_IF_ERROR(ReadOptions(fields, &config));
  RETURN_IF_ERROR(ReadDType(fields, file, &config));
  return config;
}

absl::StatusOr<GenerationDefaults> ParseGenerationConfig(std::string_view json,
                                                         std::string_view file) {
  ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(json, file, kConfigLimits));
  const JsonFields fields(object, file);
  GenerationDefaults defaults;
  ASSIGN_OR_RETURN(defaults.do_sample, fields.Bool("do_sample"));
  ASSIGN_OR_RETURN(const auto temperature, fields.Number("temperature", 0, 100));
  ASSIGN_OR_RETURN(const auto top_p, fields.Number("top_p", 0, 1, /*open_min=*/true));
  ASSIGN_OR_RETURN(const auto top_k, fields.Int("top_k", -1, INT32_MAX));
  ASSIGN_OR_RETURN(const auto min_p, fields.Number("min_p", 0, 1));
  ASSIGN_OR_RETURN(const auto penalty,
                   fields.Number("repetition_penalty", 0, 100, /*open_min=*/true));
  ASSIGN_OR_RETURN(const auto max_new_tokens, fields.Int("max_new_tokens", 1, INT32_MAX));
  ASSIGN_OR_RETURN(defaults.eos_token_ids, fields.TokenIds("eos_token_id", INT32_MAX));
  defaults.temperature = Cast<float>(temperature);
  defaults.top_p = PositiveFloat(top_p);
  defaults.top_k = Cast<int32_t>(top_k);
  defaults.min_p = Cast<float>(min_p);
  defaults.repetition_penalty = PositiveFloat(penalty);
  defaults.max_new_tokens = Cast<int32_t>(max_new_tokens);
  return defaults;
}

}  // namespace hgrn2
