#include "tests/testing/temp_dir.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/check.h"

namespace hgrn2::testing {

TempDir::TempDir() {
  path_ = (std::filesystem::temp_directory_path() / "hgrn2-test-XXXXXX").string();
  HGRN2_CHECK(mkdtemp(path_.data()) != nullptr, path_);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::Write(const std::string& name, std::string_view content) const {
  const std::string path = File(name);
  std::ofstream out(path, std::ios::binary);
  out << content;
  out.close();
  HGRN2_CHECK(out.good(), path);
  return path;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  HGRN2_CHECK(in.good(), path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace hgrn2::testing
