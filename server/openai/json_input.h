// Request bodies: strict JSON, and readers of its values into native types. Every refusal is an
// INVALID_ARGUMENT that names the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2 {

// Keeps the order of keys, which chat templates can see.
using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 64;

// The object in `text`. Refuses what readers disagree about: a key that occurs twice, numbers
// beyond a double, bytes that are not UTF-8, and nesting deeper than kMaxJsonDepth. Time and memory
// are proportional to the text, whatever is in it.
absl::StatusOr<Json> ParseRequestBody(std::string_view text);

// One value into `out`. `field` names it in errors.
absl::Status ReadValue(const Json& value, std::string_view field, bool* out);
absl::Status ReadValue(const Json& value, std::string_view field, int32_t* out);
absl::Status ReadValue(const Json& value, std::string_view field, float* out);
absl::Status ReadValue(const Json& value, std::string_view field, std::string* out);
// Negative seeds stand for their two's complement.
absl::Status ReadValue(const Json& value, std::string_view field, uint64_t* out);
absl::Status ReadValue(const Json& value, std::string_view field, std::vector<int32_t>* out);
absl::Status ReadValue(const Json& value, std::string_view field, std::vector<std::string>* out);
// An object, as it is.
absl::Status ReadValue(const Json& value, std::string_view field, Json* out);
// {"50256": -100}: sorted by token id.
absl::Status ReadValue(const Json& value, std::string_view field,
                       std::vector<std::pair<int32_t, float>>* out);

template <typename T>
absl::Status ReadValue(const Json& value, std::string_view field, std::optional<T>* out) {
  T read{};
  if (absl::Status status = ReadValue(value, field, &read); !status.ok()) return status;
  *out = std::move(read);
  return absl::OkStatus();
}

// A string, or a list of them.
absl::Status ReadStringOrList(const Json& value, std::string_view field,
                              std::vector<std::string>* out);
// Text of at most 256 bytes without control characters: goes into logs.
absl::Status ReadPrintable(const Json& value, std::string_view field, std::string* out);

}  // namespace hgrn2
