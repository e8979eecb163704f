#include "tests/testing/golden.h"

#include <cstring>

#include "base/check.h"
#include "base/string_view.h"
#include "engine/loader/safetensors.h"

namespace hgrn2::testing {
namespace {

template <typename T>
std::vector<T> Slice(const std::vector<T>& all, int64_t begin, int64_t count) {
  return {all.begin() + begin, all.begin() + begin + count};
}

const SafetensorsEntry& Require(const Safetensors& tensors, const std::string& name,
                                const char* dtype, size_t rank) {
  const SafetensorsEntry* entry = tensors.Find(name);
  HGRN2_CHECK(entry != nullptr, name);
  HGRN2_CHECK(entry->dtype == dtype && entry->shape.size() == rank, name);
  return *entry;
}

template <typename T>
std::vector<T> Values(const SafetensorsEntry& entry) {
  std::vector<T> values(entry.bytes.size() / sizeof(T));
  std::memcpy(values.data(), entry.bytes.data(), values.size() * sizeof(T));
  return values;
}

// [N, H, V, K] to [N, H, K, V].
std::vector<float> SwapLastTwo(const std::vector<float>& in, const std::vector<int64_t>& shape) {
  const int64_t V = shape[2];
  const int64_t K = shape[3];
  std::vector<float> out(in.size());
  for (int64_t nh = 0; nh < shape[0] * shape[1]; ++nh) {
    for (int64_t v = 0; v < V; ++v) {
      for (int64_t k = 0; k < K; ++k) out[(nh * K + k) * V + v] = in[(nh * V + v) * K + k];
    }
  }
  return out;
}

}  // namespace

std::string SourcePath(const std::string& relative) {
  return std::string(HGRN2_SOURCE_DIR) + "/" + relative;
}

GoldenCase LoadGolden(const std::string& name) {
  const std::string directory = GoldenDirectory(name);
  auto weights = LoadModelWeights(directory, LoadFormat::kAuto, 0);
  HGRN2_CHECK(weights.ok(), ToStd(weights.status().message()));
  const auto file = OpenSafetensors(directory + "/reference.safetensors");
  HGRN2_CHECK(file.ok(), ToStd(file.status().message()));
  const Safetensors& tensors = file->tensors;

  GoldenCase golden;
  golden.name = name;
  golden.weights = *std::move(weights);
  const SafetensorsEntry& ids = Require(tensors, "input_ids", "I32", 2);
  golden.num_rows = ids.shape[0];
  golden.num_tokens = ids.shape[1];
  golden.input_ids = Values<int32_t>(ids);
  golden.logits = Values<float>(Require(tensors, "logits", "F32", 3));
  for (int32_t l = 0; l < golden.weights.config.num_layers; ++l) {
    const SafetensorsEntry& state = Require(tensors, "state." + std::to_string(l), "F32", 4);
    golden.states.push_back(SwapLastTwo(Values<float>(state), state.shape));
  }
  const SafetensorsEntry& greedy = Require(tensors, "greedy_ids", "I32", 2);
  golden.num_greedy = greedy.shape[1];
  golden.greedy_ids = Values<int32_t>(greedy);
  golden.greedy_margin = Values<float>(Require(tensors, "greedy_margin", "F32", 2));
  golden.greedy_prompt_len = Values<int32_t>(Require(tensors, "greedy_prompt_len", "I32", 1))[0];
  return golden;
}

std::vector<int32_t> GoldenCase::RowIds(int64_t n) const {
  return Slice(input_ids, n * num_tokens, num_tokens);
}

std::vector<float> GoldenCase::RowLogits(int64_t n) const {
  const int64_t row = num_tokens * weights.config.vocab_size;
  return Slice(logits, n * row, row);
}

std::vector<float> GoldenCase::RowState(int64_t n) const {
  std::vector<float> all;
  for (const std::vector<float>& layer : states) {
    const int64_t row = static_cast<int64_t>(layer.size()) / num_rows;
    all.insert(all.end(), layer.begin() + n * row, layer.begin() + (n + 1) * row);
  }
  return all;
}

std::vector<int32_t> GoldenCase::GreedyPrompt(int64_t n) const {
  return Slice(input_ids, n * num_tokens, greedy_prompt_len);
}

}  // namespace hgrn2::testing
