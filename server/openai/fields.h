// Tables of a request's fields. One table reads the requests and writes the API's description, so
// that neither can know a field that the other does not.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "server/openai/json_input.h"

namespace hgrn2 {

template <typename Body>
struct Field {
  const char* name;
  const char* schema;  // of the value, as JSON Schema
  const char* description;
  absl::Status (*read)(const Json& value, std::string_view field, Body* body);
  // A value that is taken, for the API's description.
  const char* example;
  bool required = false;
};

// Reads every key of `object` by its field in one of the tables. null is the same as absent. A key
// that no table has is refused, as OpenAI refuses it: most are misspelt, and a parameter that is
// silently dropped changes results.
template <typename Body, typename... Tables>
absl::Status ReadFields(const Json& object, Body* body, const Tables&... tables) {
  const auto read = [&](const auto& table, const std::string& key, const Json& value,
                        absl::Status* status) {
    for (const auto& field : table) {
      if (key != field.name) continue;
      if (!value.is_null()) *status = field.read(value, key, body);
      return true;
    }
    return false;
  };
  for (const auto& [key, value] : object.template get_ref<const Json::object_t&>()) {
    absl::Status status;
    if (!(read(tables, key, value, &status) || ...)) {
      const std::string shown = key.substr(0, 64);
      return InvalidArgument(shown, "this parameter does not exist here");
    }
    RETURN_IF_ERROR(status);
  }
  const auto missing = [&](const auto& table) -> const char* {
    for (const auto& field : table) {
      if (!field.required) continue;
      const auto found = object.find(field.name);
      if (found == object.end() || found->is_null()) return field.name;
    }
    return nullptr;
  };
  for (const char* name : {missing(tables)...}) {
    if (name != nullptr) return InvalidArgument(name, "is required");
  }
  return absl::OkStatus();
}

}  // namespace hgrn2
