// Typed access to a JSON document from outside; every error names file, key and type.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2 {

// Parses without exceptions. INVALID_ARGUMENT if `text` is not JSON or nests deeper than
// `max_depth` (the recursive descent of whoever reads the document then has a bound, too).
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, std::string_view file,
                                         int max_depth = 64);

// A value and where it is. A view: the document and the file name outlive it.
class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string_view file, std::string path = "")
      : value_(&value), file_(file), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  std::string_view file() const { return file_; }
  const std::string& path() const { return path_; }

  // The member `key` of an object; null where it is absent.
  JsonField Member(std::string_view key) const;
  JsonField Element(size_t index) const;
  bool is_null() const { return value_->is_null(); }

  absl::StatusOr<std::string> String() const;
  absl::StatusOr<bool> Bool() const;
  absl::StatusOr<int64_t> Int(int64_t min, int64_t max) const;
  absl::Status ExpectObject() const;
  absl::Status ExpectArray() const;
  // For members that may be absent or null.
  absl::StatusOr<bool> BoolOr(bool otherwise) const;
  absl::StatusOr<std::string> StringOr(std::string_view otherwise) const;

  // "<file>: <path> <what>".
  absl::Status Error(std::string_view what) const;

 private:
  absl::Status Expected(std::string_view what) const;

  const nlohmann::json* value_;
  std::string_view file_;
  std::string path_;
};

}  // namespace hgrn2
