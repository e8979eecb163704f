#include "server/openai/json_input.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "base/status.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

// Builds the value and checks what nlohmann's own builder does not. Objects are filled without its
// search for the key, which would take quadratic time on a hostile one.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Json Take() { return std::move(root_); }
  const std::string& fault() const { return fault_; }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return Open(Json::value_t::object); }
  bool start_array(std::size_t) override { return Open(Json::value_t::array); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (!open_.back().keys.insert(name).second) {
      fault_ = fmt::format("the key '{}' occurs twice in one object", SafeUtf8(name, 64));
      return false;
    }
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // 406: a number that no double can hold.
    fault_ = error.id == 406 ? fmt::format("the number before byte {} is out of range", position)
                             : fmt::format("not valid JSON at byte {}", position);
    return false;
  }

 private:
  struct Level {
    Json* value;
    std::unordered_set<std::string> keys;
  };

  Json* Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back().value;
    if (parent.is_array()) {
      auto& items = parent.get_ref<Json::array_t&>();
      return &items.emplace_back(std::move(value));
    }
    std::vector<Json::object_t::value_type>& entries = parent.get_ref<Json::object_t&>();
    return &entries.emplace_back(std::move(key_), std::move(value)).second;
  }
  bool Add(Json value) {
    Place(std::move(value));
    return true;
  }
  bool Open(Json::value_t type) {
    if (open_.size() >= kMaxJsonDepth) {
      fault_ = fmt::format("nested deeper than {} levels", kMaxJsonDepth);
      return false;
    }
    open_.push_back({Place(Json(type)), {}});
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Level> open_;
  std::string key_;
  std::string fault_;
};

std::string Describe(const Json& value) {
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  return SafeUtf8(value.dump(-1, ' ', true), 80);
}

absl::Status Expected(std::string_view field, const char* what, const Json& value) {
  return InvalidArgument(field, "must be {}, got {}", what, Describe(value));
}

// Also takes 5.0, which some languages print for 5.
std::optional<int64_t> AsInteger(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  if (std::abs(number) > 1e15 || number != std::floor(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

template <typename T, typename ReadOne>
absl::Status ReadList(const Json& value, std::string_view field, const char* what,
                      std::vector<T>* out, ReadOne read_one) {
  if (!value.is_array()) return Expected(field, what, value);
  out->clear();
  out->reserve(value.size());
  for (const Json& item : value) {
    T one{};
    if (absl::Status status = read_one(item, field, &one); !status.ok()) {
      return InvalidArgument(field, "must be {}, but entry {} is {}", what, out->size(),
                             Describe(item));
    }
    out->push_back(std::move(one));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> ParseRequestBody(std::string_view text) {
  const auto fail = [](std::string_view what) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "the request's body: {}", what);
  };
  if (text.empty()) return fail("is empty, a JSON object is needed");
  // The library takes a zero byte for the end of the text.
  if (text.find('\0') != std::string_view::npos) return fail("has a zero byte");
  Builder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) return fail(builder.fault());
  Json json = builder.Take();
  if (!json.is_object()) return fail("must be a JSON object");
  return json;
}

absl::Status ReadValue(const Json& value, std::string_view field, bool* out) {
  if (!value.is_boolean()) return Expected(field, "true or false", value);
  *out = value.get<bool>();
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& value, std::string_view field, int32_t* out) {
  const std::optional<int64_t> number = AsInteger(value);
  if (!number.has_value() || *number < std::numeric_limits<int32_t>::min() ||
      *number > std::numeric_limits<int32_t>::max()) {
    return Expected(field, "an integer of 32 bits", value);
  }
  *out = static_cast<int32_t>(*number);
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& value, std::string_view field, float* out) {
  if (!value.is_number()) return Expected(field, "a number", value);
  const auto number = value.get<double>();
  if (std::abs(number) > std::numeric_limits<float>::max()) {
    return Expected(field, "a number of reasonable size", value);
  }
  *out = static_cast<float>(number);
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& value, std::string_view field, std::string* out) {
  if (!value.is_string()) return Expected(field, "a string", value);
  *out = value.get_ref<const std::string&>();
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& value, std::string_view field, uint64_t* out) {
  if (value.is_number_unsigned()) {
    *out = value.get<uint64_t>();
    return absl::OkStatus();
  }
  const std::optional<int64_t> number = AsInteger(value);
  if (!number.has_value()) return Expected(field, "an integer of 64 bits", value);
  *out = static_cast<uint64_t>(*number);
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& value, std::string_view field, std::vector<int32_t>* out) {
  return ReadList(value, field, "a list of integers", out,
                  [](const Json& item, std::string_view name, int32_t* one) {
                    return ReadValue(item, name, one);
                  });
}

absl::Status ReadValue(const Json& value, std::string_view field, std::vector<std::string>* out) {
  return ReadList(value, field, "a list of strings", out,
                  [](const Json& item, std::string_view name, std::string* one) {
                    return ReadValue(item, name, one);
                  });
}

absl::Status ReadValue(const Json& value, std::string_view field, Json* out) {
  if (!value.is_object()) return Expected(field, "an object", value);
  *out = value;
  return absl::OkStatus();
}

absl::Status ReadValue(const Json& value, std::string_view field,
                       std::vector<std::pair<int32_t, float>>* out) {
  if (!value.is_object()) return Expected(field, "an object of token ids and numbers", value);
  out->clear();
  for (const auto& [key, bias] : value.get_ref<const Json::object_t&>()) {
    int32_t id = 0;
    const char* const end = key.data() + key.size();
    if (key.empty() || std::from_chars(key.data(), end, id).ptr != end) {
      return InvalidArgument(field, "the key '{}' is not a token id", SafeUtf8(key, 40));
    }
    float number = 0;
    RETURN_IF_ERROR(ReadValue(bias, field, &number));
    out->emplace_back(id, number);
  }
  std::sort(out->begin(), out->end());
  // "1" and "01" are different keys.
  const auto same_id = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (std::adjacent_find(out->begin(), out->end(), same_id) != out->end()) {
    return InvalidArgument(field, "a token id occurs twice");
  }
  return absl::OkStatus();
}

absl::Status ReadStringOrList(const Json& value, std::string_view field,
                              std::vector<std::string>* out) {
  if (!value.is_string()) return ReadValue(value, field, out);
  *out = {value.get<std::string>()};
  return absl::OkStatus();
}

absl::Status ReadPrintable(const Json& value, std::string_view field, std::string* out) {
  constexpr size_t kMaxBytes = 256;
  RETURN_IF_ERROR(ReadValue(value, field, out));
  const bool control = std::any_of(out->begin(), out->end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (control) return InvalidArgument(field, "must not contain control characters");
  if (out->size() <= kMaxBytes) return absl::OkStatus();
  return InvalidArgument(field, "must be at most {} bytes, got {}", kMaxBytes, out->size());
}

}  // namespace hgrn2
