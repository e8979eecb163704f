// The safetensors container (https://github.com/huggingface/safetensors#format): 8 bytes of header
// length, a JSON header, and the tensors' bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/file.h"
#include "kernels/dtype.h"

namespace hgrn2 {

// The header holds about 100 bytes a tensor; the format's own limit is 100 MB.
inline constexpr size_t kMaxSafetensorsHeaderBytes = 16 << 20;
inline constexpr size_t kMaxTensorRank = 8;

// One tensor, as the header describes it.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // "F32", "BF16", ... as written, known to us or not
  std::vector<int64_t> shape;
  std::span<const uint8_t> bytes;  // a view of the file

  // The dtypes that weights may have; nullopt for any other.
  std::optional<DType> weight_dtype() const;
};

// Immutable and thread-safe. The entries' bytes are views of the memory that was parsed, which must
// outlive every use of them.
class Safetensors {
 public:
  // Checks everything that does not depend on who uses the tensors: header length, JSON, unique
  // names, that shape and dtype agree with the offsets, and that the tensors fill the data section
  // exactly, without overlap or hole, as the format demands. `file` names the source in errors.
  static absl::StatusOr<Safetensors> Parse(std::span<const uint8_t> bytes, std::string_view file);

  // Null if there is no such tensor.
  const SafetensorsEntry* Find(const std::string& name) const;
  // In the order of their bytes.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const std::string& file() const { return file_; }

 private:
  std::string file_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string, size_t> index_;
};

// A memory-mapped file and its tensors.
struct SafetensorsFile {
  std::unique_ptr<MappedFile> mapping;
  Safetensors tensors;
};
absl::StatusOr<SafetensorsFile> OpenSafetensors(const std::string& path);

}  // namespace hgrn2
