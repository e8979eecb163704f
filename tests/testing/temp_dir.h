// A directory that lives as long as the object.
#pragma once

#include <string>
#include <string_view>

namespace hgrn2::testing {

class TempDir {
 public:
  TempDir();
  ~TempDir();  // removes it with everything inside
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

  // Creates or replaces a file; returns its path.
  std::string Write(const std::string& name, std::string_view content) const;

 private:
  std::string path_;
};

// The content of a file; aborts if it cannot be read.
std::string ReadFile(const std::string& path);

}  // namespace hgrn2::testing
