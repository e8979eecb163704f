// Typed, range-checked reading of the fields of one JSON object. Private to engine/loader.
#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/status.h"
#include "engine/loader/printable.h"

namespace hgrn2 {

// The getters return nullopt (unless they say otherwise) for an absent or null key, and
// INVALID_ARGUMENT naming file, key, limit and what was found for a value that breaks the rule.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string_view file) : object_(object), file_(file) {}

  // A closed interval of integers.
  absl::StatusOr<std::optional<int64_t>> Int(const char* key, int64_t min, int64_t max) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return std::nullopt;
    ASSIGN_OR_RETURN(const int64_t number, CheckInt(key, *value, min, max));
    return number;
  }

  // Finite, in [min, max]; `open_min` excludes min.
  absl::StatusOr<std::optional<double>> Number(const char* key, double min, double max,
                                               bool open_min = false) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return std::nullopt;
    const double number = value->is_number() ? value->get<double>() : std::nan("");
    if (!(number <= max && (open_min ? number > min : number >= min))) {
      return Fault(key,
                   fmt::format("must be a number in {}{}, {}]", open_min ? '(' : '[', min, max),
                   *value);
    }
    return number;
  }

  absl::StatusOr<std::optional<bool>> Bool(const char* key) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) return Fault(key, "must be true or false", *value);
    return value->get<bool>();
  }

  // `fallback` if absent or null.
  absl::StatusOr<std::string> String(const char* key, std::string_view fallback) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return std::string(fallback);
    if (!value->is_string()) return Fault(key, "must be a string", *value);
    return value->get<std::string>();
  }

  // An integer, or a list of at most 64; empty if absent or null.
  absl::StatusOr<std::vector<int32_t>> TokenIds(const char* key, int32_t max) const {
    constexpr size_t kMaxIds = 64;
    std::vector<int32_t> ids;
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return ids;
    if (!value->is_array()) {
      ASSIGN_OR_RETURN(const int64_t id, CheckInt(key, *value, 0, max));
      ids.push_back(static_cast<int32_t>(id));
      return ids;
    }
    if (value->size() > kMaxIds) {
      return Fault(key, fmt::format("must list at most {} ids", kMaxIds), *value);
    }
    for (const nlohmann::json& item : *value) {
      ASSIGN_OR_RETURN(const int64_t id, CheckInt(key, item, 0, max));
      ids.push_back(static_cast<int32_t>(id));
    }
    return ids;
  }

  // Null if absent or null.
  const nlohmann::json* Find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  absl::Status Fault(const char* key, std::string_view rule, const nlohmann::json& found) const {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: {} {}, got {}", file_, key, rule,
                      Describe(found));
  }

 private:
  static std::string Describe(const nlohmann::json& value) {
    if (value.is_structured()) return value.type_name();  // might be of any size
    return Printable(value.dump(-1, ' ', /*ensure_ascii=*/true));
  }

  absl::StatusOr<int64_t> CheckInt(const char* key, const nlohmann::json& value, int64_t min,
                                   int64_t max) const {
    // Unsigned numbers above int64's range would wrap in get<int64_t>.
    const bool fits =
        value.is_number_integer() &&
        (!value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX));
    const int64_t number = fits ? value.get<int64_t>() : 0;
    if (!fits || number < min || number > max) {
      return Fault(key, fmt::format("must be an integer in [{}, {}]", min, max), value);
    }
    return number;
  }

  const nlohmann::json& object_;
  const std::string_view file_;
};

}  // namespace hgrn2
