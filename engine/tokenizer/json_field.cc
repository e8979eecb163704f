#include "engine/tokenizer/json_field.h"

#include <algorithm>

#include "base/status.h"

namespace hgrn2 {
namespace {

const nlohmann::json& Null() {
  static const auto* const null = new nlohmann::json;
  return *null;
}

int MaxDepth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, std::string_view file,
                                         int max_depth) {
  if (MaxDepth(text) > max_depth) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: the document nests deeper than {} levels", file, max_depth);
  }
  nlohmann::json document =
      nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: the document is not valid JSON",
                      file);
  }
  return document;
}

JsonField JsonField::Member(std::string_view key) const {
  std::string path = path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  if (!value_->is_object()) return JsonField(Null(), file_, std::move(path));
  const auto it = value_->find(std::string(key));
  return JsonField(it == value_->end() ? Null() : *it, file_, std::move(path));
}

JsonField JsonField::Element(size_t index) const {
  return JsonField((*value_)[index], file_, fmt::format("{}[{}]", path_, index));
}

absl::StatusOr<std::string> JsonField::String() const {
  if (!value_->is_string()) return Expected("a string");
  return *value_->get_ptr<const std::string*>();
}

absl::StatusOr<bool> JsonField::Bool() const {
  if (!value_->is_boolean()) return Expected("true or false");
  return *value_->get_ptr<const bool*>();
}

absl::StatusOr<int64_t> JsonField::Int(int64_t min, int64_t max) const {
  if (!value_->is_number_integer()) return Expected("an integer");
  const bool huge = value_->is_number_unsigned() &&
                    *value_->get_ptr<const uint64_t*>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t n = huge ? INT64_MAX : value_->get<int64_t>();
  if (huge || n < min || n > max) {
    return Error(fmt::format("must be in [{}, {}]", min, max));
  }
  return n;
}

absl::Status JsonField::ExpectObject() const {
  return value_->is_object() ? absl::OkStatus() : Expected("an object");
}
absl::Status JsonField::ExpectArray() const {
  return value_->is_array() ? absl::OkStatus() : Expected("an array");
}

absl::StatusOr<bool> JsonField::BoolOr(bool otherwise) const {
  if (is_null()) return otherwise;
  return Bool();
}
absl::StatusOr<std::string> JsonField::StringOr(std::string_view otherwise) const {
  if (is_null()) return std::string(otherwise);
  return String();
}

absl::Status JsonField::Error(std::string_view what) const {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: {} {}", file_,
                    path_.empty() ? "the document" : path_.substr(0, 200), what);
}

absl::Status JsonField::Expected(std::string_view what) const {
  return Error(
      fmt::format("must be {}, not {}", what, is_null() ? "absent or null" : value_->type_name()));
}

}  // namespace hgrn2
