// The safetensors files of one checkpoint directory, as one set of named tensors.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/safetensors.h"

namespace hgrn2 {

// weight_map of model.safetensors.index.json: tensor name to file name.
using WeightMap = std::unordered_map<std::string, std::string>;

// File names must be plain names ending in .safetensors: a path could point outside the directory.
absl::StatusOr<WeightMap> ParseShardIndex(std::string_view json, std::string_view file);

// Immutable and thread-safe; owns the mappings.
class Checkpoint {
 public:
  // model.safetensors if there is one, else the shards that model.safetensors.index.json lists.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> Open(const std::string& directory);

  struct Located {
    const SafetensorsEntry* entry;  // null: no such tensor
    std::string file;               // that holds it, or where it was looked for
  };
  Located Find(const std::string& name) const;

  size_t num_tensors() const;

 private:
  Checkpoint() = default;
  absl::Status OpenShards(const std::string& directory, const std::string& index_path);

  std::vector<SafetensorsFile> files_;
  bool sharded_ = false;
  std::string index_path_;                           // if sharded
  std::unordered_map<std::string, size_t> located_;  // if sharded: tensor to files_
};

}  // namespace hgrn2
