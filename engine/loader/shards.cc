#include "engine/loader/shards.h"

#include <map>
#include <utility>

#include "base/status.h"
#include "engine/loader/json.h"
#include "engine/loader/printable.h"

namespace hgrn2 {
namespace {

constexpr JsonLimits kIndexLimits = {.max_bytes = 16 << 20, .max_depth = 16};
constexpr size_t kMaxShards = 1000;

constexpr const char kSingleFile[] = "model.safetensors";
constexpr const char kIndexFile[] = "model.safetensors.index.json";

bool IsPlainShardName(std::string_view name) {
  constexpr std::string_view kSuffix = ".safetensors";
  return name.size() > kSuffix.size() && name.size() <= 255 && name.ends_with(kSuffix) &&
         name.find('/') == std::string_view::npos && name.find('\\') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

absl::Status NoWeights(const std::string& directory) {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt"}) {
    if (FileExists(directory + "/" + name)) {
      return MakeStatus(absl::StatusCode::kNotFound,
                        "{}: has {} but no {}: convert the checkpoint to safetensors", directory,
                        name, kSingleFile);
    }
  }
  return MakeStatus(absl::StatusCode::kNotFound, "{}: has neither {} nor {}", directory,
                    kSingleFile, kIndexFile);
}

}  // namespace

absl::StatusOr<WeightMap> ParseShardIndex(std::string_view json, std::string_view file) {
  ASSIGN_OR_RETURN(const nlohmann::json index, ParseJsonObject(json, file, kIndexLimits));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: weight_map must be an object of tensor names to file names", file);
  }
  WeightMap result;
  for (const auto& [tensor, name] : map->items()) {
    if (!name.is_string() || !IsPlainShardName(name.get_ref<const std::string&>())) {
      return MakeStatus(
          absl::StatusCode::kInvalidArgument,
          "{}: weight_map[\"{}\"] must be the name of a .safetensors file in the same "
          "directory, got {}",
          file, Printable(tensor),
          name.is_string() ? Printable(name.get_ref<const std::string&>()) : name.type_name());
    }
    result.emplace(tensor, name.get<std::string>());
  }
  return result;
}

absl::Status Checkpoint::OpenShards(const std::string& directory, const std::string& index_path) {
  ASSIGN_OR_RETURN(const std::string json, ReadWholeFile(index_path, kIndexLimits.max_bytes));
  ASSIGN_OR_RETURN(const WeightMap weight_map, ParseShardIndex(json, index_path));
  sharded_ = true;
  index_path_ = index_path;
  std::map<std::string, size_t> opened;
  for (const auto& [tensor, name] : weight_map) {
    const auto [it, is_new] = opened.emplace(name, files_.size());
    if (is_new) {
      if (files_.size() == kMaxShards) {
        return MakeStatus(absl::StatusCode::kInvalidArgument,
                          "{}: weight_map lists more than {} files", index_path, kMaxShards);
      }
      ASSIGN_OR_RETURN(SafetensorsFile file, OpenSafetensors(directory + "/" + name));
      files_.push_back(std::move(file));
    }
    located_.emplace(tensor, it->second);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string& directory) {
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint);
  const std::string single = directory + "/" + kSingleFile;
  const std::string index = directory + "/" + kIndexFile;
  if (FileExists(single)) {
    ASSIGN_OR_RETURN(SafetensorsFile file, OpenSafetensors(single));
    checkpoint->files_.push_back(std::move(file));
  } else if (FileExists(index)) {
    RETURN_IF_ERROR(checkpoint->OpenShards(directory, index));
  } else {
    return NoWeights(directory);
  }
  return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
}

Checkpoint::Located Checkpoint::Find(const std::string& name) const {
  if (!sharded_) return {files_[0].tensors.Find(name), files_[0].tensors.file()};
  const auto it = located_.find(name);
  if (it == located_.end()) return {nullptr, index_path_};
  const Safetensors& tensors = files_[it->second].tensors;
  return {tensors.Find(name), tensors.file()};
}

size_t Checkpoint::num_tensors() const {
  size_t n = 0;
  for (const SafetensorsFile& file : files_) n += file.tensors.entries().size();
  return n;
}

}  // namespace hgrn2
