#include "engine/chat/json_values.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/chat/limits.h"
#include "engine/chat/operators.h"
#include "engine/chat/text.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2::chat {
namespace {

using Json = nlohmann::ordered_json;

absl::StatusOr<Value> Convert(const Json& json, int32_t depth, Budget* budget) {
  if (depth > kMaxValueDepth) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "JSON is nested deeper than {} levels",
                      kMaxValueDepth);
  }
  if (json.is_null()) return Value::MakeNone();
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "an integer is larger than 64 bits");
  }
  if (json.is_number_integer()) return Value(json.get<int64_t>());
  if (json.is_number_float()) return Value(json.get<double>());
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    if (!unicode::IsValid(text)) {
      return MakeStatus(absl::StatusCode::kInvalidArgument, "a text is not valid UTF-8");
    }
    return Value::MakeText(text, budget);
  }
  RETURN_IF_ERROR(budget->Step());
  if (json.is_array()) {
    std::vector<Value> items;
    items.reserve(json.size());
    for (const Json& item : json) {
      ASSIGN_OR_RETURN(Value value, Convert(item, depth + 1, budget));
      items.push_back(std::move(value));
    }
    return MakeList(List::Kind::kList, std::move(items), budget);
  }
  auto dict = std::make_shared<Dict>(budget);
  for (const auto& [key, item] : json.items()) {
    if (!unicode::IsValid(key)) {
      return MakeStatus(absl::StatusCode::kInvalidArgument, "a key is not valid UTF-8");
    }
    ASSIGN_OR_RETURN(Value value, Convert(item, depth + 1, budget));
    dict->Set(Value::MakeText(key, budget), std::move(value));
  }
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

class Writer {
 public:
  Writer(const JsonStyle& style, Budget* budget) : style_(style), budget_(budget) {}

  absl::Status Write(const Value& value) {
    RETURN_IF_ERROR(budget_->Step());
    RETURN_IF_ERROR(budget_->CheckRoom(std::ssize(out_)));
    if (value.IsText()) {
      budget_->Work(std::ssize(value.str()));
      out_ += JsonString(value.str(), style_.ensure_ascii);
    } else if (value.IsNone()) {
      out_ += "null";
    } else if (value.IsBool()) {
      out_ += value.AsInt() != 0 ? "true" : "false";
    } else if (value.IsInt()) {
      out_ += fmt::format("{}", value.AsInt());
    } else if (value.IsFloat()) {
      out_ += Float(value.AsDouble());
    } else if (value.dict() != nullptr) {
      return WriteDict(*value.dict());
    } else if (value.list() != nullptr && (value.list()->kind == List::Kind::kList ||
                                           value.list()->kind == List::Kind::kTuple)) {
      return WriteList(value.list()->items);
    } else {
      return MakeStatus(absl::StatusCode::kInvalidArgument, "a value of type {} has no JSON form",
                        value.TypeName());
    }
    return absl::OkStatus();
  }
  std::string Take() { return std::move(out_); }

 private:
  static std::string Float(double number) {
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
    return FloatToString(number);
  }
  // Keys that are not text become text, as in json.dumps.
  static std::string Key(const Value& key) {
    if (key.IsText()) return key.str();
    if (key.IsNone()) return "null";
    if (key.IsBool()) return key.AsInt() != 0 ? "true" : "false";
    return key.IsInt() ? fmt::format("{}", key.AsInt()) : Float(key.AsDouble());
  }
  void NewLine() {
    if (!style_.multi_line) return;
    out_ += '\n';
    for (int i = 0; i < level_; ++i) out_ += style_.indent;
  }
  absl::Status WriteDict(const Dict& dict) {
    if (dict.items.empty()) {
      out_ += "{}";
      return absl::OkStatus();
    }
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(),
                       [](const auto* a, const auto* b) { return Key(a->first) < Key(b->first); });
    }
    out_ += '{';
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine();
      out_ += JsonString(Key(items[i]->first), style_.ensure_ascii) + style_.key_separator;
      RETURN_IF_ERROR(Write(items[i]->second));
    }
    --level_;
    NewLine();
    out_ += '}';
    return absl::OkStatus();
  }
  absl::Status WriteList(const std::vector<Value>& items) {
    if (items.empty()) {
      out_ += "[]";
      return absl::OkStatus();
    }
    out_ += '[';
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine();
      RETURN_IF_ERROR(Write(items[i]));
    }
    --level_;
    NewLine();
    out_ += ']';
    return absl::OkStatus();
  }

  const JsonStyle& style_;
  Budget* const budget_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

absl::StatusOr<Value> FromJson(const Json& json, Budget* budget) {
  return Convert(json, 0, budget);
}

absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style, Budget* budget) {
  Writer writer(style, budget);
  RETURN_IF_ERROR(writer.Write(value));
  return writer.Take();
}

}  // namespace hgrn2::chat
