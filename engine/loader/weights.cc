#include "engine/loader/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "engine/loader/dummy_weights.h"
#include "engine/loader/file.h"
#include "engine/loader/finite.h"
#include "engine/loader/float16.h"
#include "engine/loader/lower_bounds.h"
#include "engine/loader/printable.h"
#include "engine/loader/shards.h"
#include "engine/loader/tensor_hash.h"
#include "engine/loader/weight_names.h"

namespace hgrn2 {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

float ReadElement(const void* data, DType dtype, int64_t i) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(data) + 4 * i, sizeof(value));
    return value;
  }
  uint16_t bits;  // files promise no alignment
  std::memcpy(&bits, static_cast<const char*>(data) + 2 * i, sizeof(bits));
  return dtype == DType::kBF16 ? BFloat16ToFloat(bits) : Float16ToFloat(bits);
}

absl::StatusOr<ModelConfig> LoadConfig(const std::string& directory) {
  const std::string path = directory + "/config.json";
  ASSIGN_OR_RETURN(const std::string json, ReadWholeFile(path, kMaxConfigBytes));
  return ParseModelConfig(json, path);
}

absl::Status BindTensor(const Checkpoint& checkpoint, const TensorSlot& slot) {
  const Checkpoint::Located located = checkpoint.Find(slot.name);
  const auto fail = [&](std::string_view what) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: tensor \"{}\" {}", located.file,
                      slot.name, what);
  };
  if (located.entry == nullptr) {
    return fail(fmt::format("of shape [{}] is missing", fmt::join(slot.shape, ", ")));
  }
  const SafetensorsEntry& entry = *located.entry;
  if (entry.shape != slot.shape) {
    return fail(fmt::format("has shape [{}], config.json asks for [{}]",
                            fmt::join(entry.shape, ", "), fmt::join(slot.shape, ", ")));
  }
  const std::optional<DType> dtype = entry.weight_dtype();
  if (!dtype) {
    return fail(
        fmt::format("has dtype {}, supported are F32, BF16 and F16", Printable(entry.dtype)));
  }
  // Published models have none; dropping one silently would serve a different model.
  constexpr std::string_view kWeight = ".weight";
  if (slot.name.ends_with(kWeight)) {
    const std::string bias = slot.name.substr(0, slot.name.size() - kWeight.size()) + ".bias";
    if (checkpoint.Find(bias).entry != nullptr) {
      return fail(fmt::format("comes with \"{}\", and biases are not supported", bias));
    }
  }
  *slot.view = {.data = entry.bytes.data(), .dtype = *dtype, .shape = entry.shape};
  return absl::OkStatus();
}

// One value that is not a number makes every token after it one too.
absl::Status CheckFinite(const Checkpoint& checkpoint, const TensorSlot& slot) {
  const int64_t at = FindNonFinite(*slot.view);
  if (at < 0) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kInvalidArgument,
                    "{}: tensor \"{}\" holds {} at element {}: weights must be finite",
                    checkpoint.Find(slot.name).file, slot.name, slot.view->At(at), at);
}

absl::StatusOr<ModelWeights> LoadCheckpoint(const std::string& directory, ModelConfig config) {
  ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> checkpoint, Checkpoint::Open(directory));
  ModelWeights weights;
  weights.config = std::move(config);
  TensorView raw_lower_bounds;
  const std::vector<TensorSlot> slots = TensorSlots(&weights, &raw_lower_bounds);
  for (const TensorSlot& slot : slots) RETURN_IF_ERROR(BindTensor(*checkpoint, slot));
  for (const TensorSlot& slot : slots) RETURN_IF_ERROR(CheckFinite(*checkpoint, slot));
  if (checkpoint->num_tensors() > slots.size()) {
    LOG_WARNING("{}: {} tensors are not part of the model and are ignored", directory,
                checkpoint->num_tensors() - slots.size());
  }
  weights.lower_bounds = LowerBounds(weights.config, raw_lower_bounds);
  if (weights.config.tie_word_embeddings) weights.lm_head = weights.embeddings;
  weights.hash = HashModel(weights.config, slots);
  weights.storage = std::move(checkpoint);
  return weights;
}

}  // namespace

float TensorView::At(int64_t i) const { return ReadElement(data, dtype, i); }

std::vector<float> TensorView::ToFloat() const {
  std::vector<float> values(data == nullptr ? 0 : size());
  if (values.empty()) return values;
  if (dtype == DType::kF32) {
    std::memcpy(values.data(), data, values.size() * sizeof(float));
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) values[i] = ReadElement(data, dtype, i);
  return values;
}

std::vector<float> LowerBounds(const ModelConfig& config, const TensorView& raw) {
  const int64_t layers = config.num_layers;
  const int64_t d = config.hidden_size;
  std::vector<float> bounds(layers * d, 0.0f);
  if (!config.use_lower_bound) return bounds;
  const std::vector<float> x = raw.ToFloat();
  for (int64_t c = 0; c < d; ++c) {
    double max = x[c];
    for (int64_t l = 1; l < layers; ++l) max = std::max<double>(max, x[l * d + c]);
    double total = 0;
    for (int64_t l = 0; l < layers; ++l) total += std::exp(x[l * d + c] - max);
    double sum = 0;
    for (int64_t l = 1; l < layers; ++l) {
      sum += std::exp(x[l * d + c] - max);
      bounds[l * d + c] = static_cast<float>(sum / total);
    }
  }
  return bounds;
}

absl::StatusOr<ModelWeights> LoadModelWeights(const std::string& directory, LoadFormat format,
                                              uint64_t seed) {
  ASSIGN_OR_RETURN(ModelConfig config, LoadConfig(directory));
  if (format == LoadFormat::kDummy) return TryMakeDummyWeights(config, config.torch_dtype, seed);
  return LoadCheckpoint(directory, std::move(config));
}

absl::StatusOr<GenerationDefaults> LoadGenerationDefaults(const std::string& directory) {
  const std::string path = directory + "/generation_config.json";
  if (!FileExists(path)) return GenerationDefaults{};
  ASSIGN_OR_RETURN(const std::string json, ReadWholeFile(path, kMaxConfigBytes));
  ASSIGN_OR_RETURN(GenerationDefaults defaults, ParseGenerationConfig(json, path));
  // Only the config knows the vocabulary.
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(directory));
  for (const int32_t id : defaults.eos_token_ids) {
    if (id >= config.vocab_size) {
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        "{}: eos_token_id {} must be below vocab_size ({})", path, id,
                        config.vocab_size);
    }
  }
  return defaults;
}

}  // namespace hgrn2
