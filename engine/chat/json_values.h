// JSON to values and back.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "engine/chat/value.h"

namespace hgrn2::chat {

absl::StatusOr<Value> FromJson(const nlohmann::ordered_json& json, Budget* budget);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool multi_line = false;
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// json.dumps.
absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style, Budget* budget);

}  // namespace hgrn2::chat
