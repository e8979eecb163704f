// Reading the files of a checkpoint directory. Errors name the path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace hgrn2 {

// True for anything that exists under that name, links followed.
bool FileExists(const std::string& path);

// The whole of a regular file. NOT_FOUND if absent, INVALID_ARGUMENT if longer than max_bytes.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t max_bytes);

// A read-only, private mapping of a regular file. Whoever truncates the file while it is mapped
// kills the process with SIGBUS; replacing it by rename is safe.
class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  std::span<const uint8_t> bytes_;  // empty: nothing is mapped
};

}  // namespace hgrn2
