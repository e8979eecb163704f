#include "engine/chat/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "base/status.h"
#include "engine/chat/environment.h"
#include "engine/chat/format.h"
#include "engine/chat/json_values.h"
#include "engine/chat/methods.h"
#include "engine/chat/named.h"
#include "engine/chat/operators.h"
#include "engine/chat/text.h"

namespace hgrn2::chat {
namespace {

using Result = absl::StatusOr<Value>;

template <typename... Parts>
absl::Status Fail(fmt::format_string<Parts...> format, Parts&&... parts) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, format, std::forward<Parts>(parts)...);
}

absl::StatusOr<Value> AsText(const Value& value, Budget* budget) {
  if (value.IsText()) return value;
  ASSIGN_OR_RETURN(std::string text, ToText(value));
  return Value::MakeText(std::move(text), budget);
}

// A filter that is a method of the value's text.
Result CallTextMethod(std::string_view method, const Value& value, const Args& args,
                      Budget* budget) {
  ASSIGN_OR_RETURN(const Value text, AsText(value, budget));
  return CallMethod(text, method, args, budget);
}

template <std::string (*kFunction)(std::string_view)>
Result MapText(const Value& value, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("the filter", args, {}, 0).status());
  ASSIGN_OR_RETURN(const std::string text, ToText(value));
  return Value::MakeText(kFunction(text), budget);
}

Result Trim(const Value& value, const Args& args, Budget* budget) {
  return CallTextMethod("strip", value, args, budget);
}

Result Center(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(auto bound, BindArgs("center", args, {"width"}, 0));
  if (bound[0].IsUndefined()) bound[0] = Value(int64_t{80});
  return CallTextMethod("center", value, {bound, {}}, budget);
}

Result ReplaceFilter(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(auto bound, BindArgs("replace", args, {"old", "new", "count"}, 2));
  for (int i : {0, 1}) {
    ASSIGN_OR_RETURN(bound[i], AsText(bound[i], budget));
  }
  if (bound[2].IsUndefined()) bound.pop_back();
  return CallTextMethod("replace", value, {bound, {}}, budget);
}

Result String(const Value& value, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("string", args, {}, 0).status());
  return AsText(value, budget);
}

Result FormatFilter(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const std::string format, ToText(value));
  Value arguments;
  if (args.named.empty()) {
    arguments = MakeList(List::Kind::kTuple, args.positional, budget);
  } else {
    if (!args.positional.empty())
      return Fail("format takes arguments either with names or without");
    auto dict = std::make_shared<Dict>(budget);
    for (const auto& [name, item] : args.named) dict->Set(Value::MakeText(name, budget), item);
    arguments = Value(std::shared_ptr<const Dict>(std::move(dict)));
  }
  ASSIGN_OR_RETURN(std::string text, PercentFormat(format, arguments, budget));
  return Value::MakeText(std::move(text), budget);
}

Result Default(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(auto bound, BindArgs("default", args, {"default_value", "boolean"}, 0));
  if (!value.IsUndefined() && !(IsTrue(bound[1]) && !IsTrue(value))) return value;
  const bool given = args.positional.size() + args.named.size() > 0;
  return given ? bound[0] : Value::MakeText("", budget);
}

Result Attr(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("attr", args, {"name"}, 1));
  ASSIGN_OR_RETURN(const std::string name, ToText(bound[0]));
  // Attributes only, not a dict's items.
  if (value.dict() != nullptr && !HasMethod(value, name)) {
    return Value::MakeUndefined(fmt::format("'dict object' has no attribute {}", Repr(name)));
  }
  return GetAttribute(value, name, budget);
}

// What float() makes of a text; false if nothing.
bool ParseFloat(std::string_view text, double* out) {
  text = StripRight(StripLeft(text));
  if (text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text.starts_with('+')) return false;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), *out);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

bool ParseInt(std::string_view text, int base, int64_t* out) {
  text = StripRight(StripLeft(text));
  if (text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text.starts_with('+')) return false;
  if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.remove_prefix(2);
  const auto result = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

Result Int(const Value& value, const Args& args, Budget*) {
  ASSIGN_OR_RETURN(auto bound, BindArgs("int", args, {"default", "base"}, 0));
  RETURN_IF_ERROR(UseUndefined(value));
  int64_t base = 10;
  if (!bound[1].IsUndefined()) {
    ASSIGN_OR_RETURN(base, ToInt(bound[1], "base"));
    if (base < 2 || base > 36) return Fail("int's base must be in [2, 36]");
  }
  const Value otherwise = bound[0].IsUndefined() ? Value(int64_t{0}) : bound[0];
  if (value.IsIntegral()) return Value(value.AsInt());
  int64_t number;
  if (value.IsText() && ParseInt(value.str(), static_cast<int>(base), &number))
    return Value(number);
  double real;
  if (value.IsFloat()) {
    real = value.AsDouble();
  } else if (!value.IsText() || !ParseFloat(value.str(), &real)) {
    return otherwise;
  }
  if (!std::isfinite(real)) return otherwise;
  if (std::abs(real) >= 9.2e18) return Fail("an integer is larger than 64 bits");
  return Value(static_cast<int64_t>(real));
}

Result Float(const Value& value, const Args& args, Budget*) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("float", args, {"default"}, 0));
  RETURN_IF_ERROR(UseUndefined(value));
  if (value.IsNumber()) return Value(value.AsDouble());
  double number;
  if (value.IsText() && ParseFloat(value.str(), &number)) return Value(number);
  return bound[0].IsUndefined() ? Value(0.0) : bound[0];
}

Result Abs(const Value& value, const Args& args, Budget*) {
  RETURN_IF_ERROR(BindArgs("abs", args, {}, 0).status());
  if (value.IsFloat()) return Value(std::abs(value.AsDouble()));
  ASSIGN_OR_RETURN(const int64_t number, ToInt(value, "abs's value"));
  return number < 0 ? Negate(Value(number)) : Value(number);
}

Result Round(const Value& value, const Args& args, Budget*) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("round", args, {"precision", "method"}, 0));
  RETURN_IF_ERROR(UseUndefined(value));
  if (!value.IsNumber()) return Fail("round needs a number, not '{}'", value.TypeName());
  int64_t precision = 0;
  if (!bound[0].IsUndefined()) {
    ASSIGN_OR_RETURN(precision, ToInt(bound[0], "precision"));
  }
  if (precision < 0 || precision > 15) return Fail("round's precision must be in [0, 15]");
  std::string method = "common";
  if (!bound[1].IsUndefined()) {
    ASSIGN_OR_RETURN(method, ToText(bound[1]));
  }
  const double number = value.AsDouble();
  if (method == "common") {
    if (value.IsIntegral()) return value.IsBool() ? Value(value.AsInt()) : value;
    // Through decimal digits, as Python's round: exact ties go to the even neighbour.
    return Value(std::stod(fmt::format("{:.{}f}", number, precision)));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value(std::ceil(number * scale) / scale);
  if (method == "floor") return Value(std::floor(number * scale) / scale);
  return Fail("round's method must be common, ceil or floor");
}

Result LengthFilter(const Value& value, const Args& args, Budget*) {
  RETURN_IF_ERROR(BindArgs("length", args, {}, 0).status());
  ASSIGN_OR_RETURN(const int64_t length, Length(value));
  return Value(length);
}

Result Indent(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("indent", args, {"width", "first", "blank"}, 0));
  RETURN_IF_ERROR(UseUndefined(value));
  if (!value.IsText()) return Fail("indent needs a text, not '{}'", value.TypeName());
  ASSIGN_OR_RETURN(const std::string text, ToText(value));
  std::string indent = "    ";
  if (bound[0].IsText()) {
    indent = bound[0].str();
  } else if (!bound[0].IsUndefined()) {
    ASSIGN_OR_RETURN(const int64_t width, ToInt(bound[0], "width"));
    RETURN_IF_ERROR(budget->CheckRoom(width));
    indent.assign(std::max<int64_t>(width, 0), ' ');
  }
  const bool blank = IsTrue(bound[2]);
  const std::string with_end = text + "\n";  // a last, empty line counts as well
  std::string out;
  if (IsTrue(bound[1])) out = indent;
  bool first = true;
  for (const std::string_view line : SplitLines(with_end)) {
    if (!first) out += '\n';
    if (!first && (blank || !line.empty())) out += indent;
    out += line;
    first = false;
    RETURN_IF_ERROR(budget->CheckRoom(std::ssize(out)));
  }
  return Value::MakeText(std::move(out), budget);
}

Result ToJsonFilter(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(
      const auto bound,
      BindArgs("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}, 0));
  JsonStyle style;
  style.ensure_ascii = IsTrue(bound[0]);
  style.sort_keys = IsTrue(bound[3]);
  if (bound[1].IsText()) {
    style.indent = bound[1].str();
    style.multi_line = true;
  } else if (!bound[1].IsUndefined() && !bound[1].IsNone()) {
    ASSIGN_OR_RETURN(const int64_t indent, ToInt(bound[1], "indent"));
    if (indent > 100) return Fail("tojson's indent must be at most 100");
    style.indent.assign(std::max<int64_t>(indent, 0), ' ');
    style.multi_line = true;
  }
  if (style.multi_line) style.item_separator = ",";
  if (const List* const separators = bound[2].list()) {
    const auto& items = separators->items;
    if (items.size() != 2 || !items[0].IsText() || !items[1].IsText()) {
      return Fail("tojson's separators must be two texts");
    }
    style.item_separator = items[0].str();
    style.key_separator = items[1].str();
  }
  ASSIGN_OR_RETURN(std::string text, ToJson(value, style, budget));
  return Value::MakeText(std::move(text), budget);
}

// The parser allows it only where nothing can tell it from no filter at all.
Result Safe(const Value& value, const Args& args, Budget* budget) {
  return String(value, args, budget);
}

constexpr Named<FilterFunction> kFilters[] = {
    {"abs", Abs},
    {"attr", Attr},
    {"capitalize", MapText<Capitalize>},
    {"center", Center},
    {"count", LengthFilter},
    {"d", Default},
    {"default", Default},
    {"float", Float},
    {"format", FormatFilter},
    {"indent", Indent},
    {"int", Int},
    {"length", LengthFilter},
    {"lower", MapText<Lower>},
    {"replace", ReplaceFilter},
    {"round", Round},
    {"safe", Safe},
    {"string", String},
    {"title", MapText<TitleFilter>},
    {"tojson", ToJsonFilter},
    {"trim", Trim},
    {"upper", MapText<Upper>},
};

}  // namespace

FilterFunction FindFilter(std::string_view name) {
  const FilterFunction found = FindNamed(kFilters, name);
  return found != nullptr ? found : FindSequenceFilter(name);
}

}  // namespace hgrn2::chat
