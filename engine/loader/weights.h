// Host-side view of a checkpoint's tensors. Backends read these once at start and keep their own
// packed copies.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/model_config.h"
#include "kernels/dtype.h"

namespace hgrn2 {

// A view of a row-major tensor; the memory is owned by ModelWeights::storage. data is aligned to
// its element size only.
struct TensorView {
  const void* data = nullptr;  // null: the checkpoint has no such tensor
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  explicit operator bool() const { return data != nullptr; }
  int64_t size() const {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    return n;
  }
  // Element i as float, whatever the dtype. For load-time use.
  float At(int64_t i) const;
  // All elements as float.
  std::vector<float> ToFloat() const;
};

struct LayerWeights {
  TensorView attn_norm;                       // [d]
  TensorView q_proj, f_proj, i_proj, o_proj;  // [d, d], y = x W^T
  TensorView q_conv, f_conv, i_conv;          // [d, 1, conv_size] or absent
  TensorView g_norm;                          // [d], absent if !elementwise_affine
  TensorView mlp_norm;                        // [d]
  TensorView gate_proj, up_proj;              // [m, d]
  TensorView down_proj;                       // [d, m]
};

struct ModelWeights {
  ModelConfig config;
  TensorView embeddings;  // [vocab, d]
  std::vector<LayerWeights> layers;
  TensorView norm;     // [d]
  TensorView lm_head;  // [vocab, d]; the embeddings' view if tied
  // [L][d], lb[l] of the forward equations, already through softmax and cumulative sum in double.
  // Row 0 is zero; all zero if !use_lower_bound.
  std::vector<float> lower_bounds;
  // 16 hex digits of a hash over config and tensor bytes: states of one hash resume only under it.
  std::string hash;
  std::shared_ptr<const void> storage;  // keeps mapped files or generated weights alive
};

enum class LoadFormat { kAuto, kDummy };

// A Hugging Face directory: config.json and model.safetensors or the shards that
// model.safetensors.index.json lists (memory-mapped). kDummy: seeded random weights from
// config.json alone, in config.torch_dtype. Thread-compatible; errors name file, key and limit.
absl::StatusOr<ModelWeights> LoadModelWeights(const std::string& directory, LoadFormat format,
                                              uint64_t seed);

// generation_config.json of the directory; all unset if there is none.
absl::StatusOr<GenerationDefaults> LoadGenerationDefaults(const std::string& directory);

// From a config alone; the tests' and benchmarks' entry.
ModelWeights MakeDummyWeights(const ModelConfig& config, DType dtype, uint64_t seed);

}  // namespace hgrn2
