#include "engine/chat/operators.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status.h"
#include "engine/chat/format.h"
#include "engine/chat/text.h"

namespace hgrn2::chat {
namespace {

template <typename... Parts>
absl::Status Fail(fmt::format_string<Parts...> format, Parts&&... parts) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, format, std::forward<Parts>(parts)...);
}

absl::Status Unsupported(std::string_view op, const Value& a, const Value& b) {
  RETURN_IF_ERROR(UseUndefined(a));
  RETURN_IF_ERROR(UseUndefined(b));
  return Fail("unsupported operand types for {}: '{}' and '{}'", op, a.TypeName(), b.TypeName());
}
absl::Status Overflow() { return Fail("an integer is larger than 64 bits"); }

// Python rounds quotients down.
absl::StatusOr<Value> Divide(std::string_view op, const Value& a, const Value& b) {
  if (b.AsDouble() == 0) return Fail("division by zero");
  if (op == "/") return Value(a.AsDouble() / b.AsDouble());
  if (!a.IsIntegral() || !b.IsIntegral()) {
    const double quotient = std::floor(a.AsDouble() / b.AsDouble());
    if (op == "//") return Value(quotient);
    double rest = std::fmod(a.AsDouble(), b.AsDouble());
    if (rest != 0 && (rest < 0) != (b.AsDouble() < 0)) rest += b.AsDouble();
    return Value(rest);
  }
  const int64_t x = a.AsInt();
  const int64_t y = b.AsInt();
  if (y == -1) {
    if (op == "%") return Value(int64_t{0});
    if (x == INT64_MIN) return Overflow();
    return Value(-x);
  }
  int64_t quotient = x / y;
  int64_t rest = x % y;
  if (rest != 0 && (rest < 0) != (y < 0)) {
    --quotient;
    rest += y;
  }
  return Value(op == "//" ? quotient : rest);
}

absl::StatusOr<Value> Power(const Value& a, const Value& b) {
  if (!a.IsIntegral() || !b.IsIntegral() || b.AsInt() < 0) {
    if (a.AsDouble() == 0 && b.AsDouble() < 0) return Fail("zero to a negative power");
    return Value(std::pow(a.AsDouble(), b.AsDouble()));
  }
  int64_t result = 1;
  int64_t base = a.AsInt();
  for (int64_t exponent = b.AsInt(); exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value(result);
}

absl::StatusOr<Value> Numbers(std::string_view op, const Value& a, const Value& b) {
  if (op == "/" || op == "//" || op == "%") return Divide(op, a, b);
  if (op == "**") return Power(a, b);
  if (!a.IsIntegral() || !b.IsIntegral()) {
    const double x = a.AsDouble();
    const double y = b.AsDouble();
    return Value(op == "+" ? x + y : op == "-" ? x - y : x * y);
  }
  int64_t result;
  const bool overflow = op == "+"   ? __builtin_add_overflow(a.AsInt(), b.AsInt(), &result)
                        : op == "-" ? __builtin_sub_overflow(a.AsInt(), b.AsInt(), &result)
                                    : __builtin_mul_overflow(a.AsInt(), b.AsInt(), &result);
  if (overflow) return Overflow();
  return Value(result);
}

bool IsSequence(const Value& value) {
  return value.list() != nullptr &&
         (value.list()->kind == List::Kind::kList || value.list()->kind == List::Kind::kTuple);
}

absl::StatusOr<Value> Repeat(const Value& sequence, int64_t times, Budget* budget) {
  times = std::max<int64_t>(times, 0);
  const int64_t unit = sequence.IsText()
                           ? static_cast<int64_t>(sequence.str().size())
                           : std::ssize(sequence.list()->items) * int64_t{sizeof(Value)};
  if (unit > 0 && times > INT32_MAX) return budget->CheckRoom(INT64_MAX / 2);
  RETURN_IF_ERROR(budget->CheckRoom(unit * times));
  if (unit == 0) times = 0;
  if (sequence.IsText()) {
    std::string out;
    for (int64_t i = 0; i < times; ++i) out += sequence.str();
    return Value::MakeText(std::move(out), budget);
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < times; ++i) {
    items.insert(items.end(), sequence.list()->items.begin(), sequence.list()->items.end());
  }
  return MakeList(sequence.list()->kind, std::move(items), budget);
}

absl::StatusOr<Value> Join(const Value& a, const Value& b, Budget* budget) {
  std::vector<Value> items = a.list()->items;
  items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
  return MakeList(a.list()->kind, std::move(items), budget);
}

absl::StatusOr<bool> IsIn(const Value& needle, const Value& haystack, Budget* budget) {
  if (haystack.IsText()) {
    if (!needle.IsText()) {
      return Fail("'in' on a text needs a text on its left, got '{}'", needle.TypeName());
    }
    budget->Work(std::ssize(haystack.str()));
    return haystack.str().find(needle.str()) != std::string::npos;
  }
  if (haystack.dict() != nullptr &&
      ((needle.list() != nullptr && needle.list()->kind != List::Kind::kTuple) ||
       needle.dict() != nullptr)) {
    return Fail("a '{}' cannot be a key", needle.TypeName());
  }
  if (haystack.dict() != nullptr) return haystack.dict()->Find(needle) != nullptr;
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(haystack, budget));
  budget->Work(std::ssize(items) * 16);
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& item) { return AreEqual(needle, item); });
}

bool SameItems(const std::vector<Value>& a, const std::vector<Value>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), AreEqual);
}

bool SameDicts(const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  return std::all_of(a.items.begin(), a.items.end(), [&](const auto& item) {
    const Value* const other = b.Find(item.first);
    return other != nullptr && AreEqual(item.second, *other);
  });
}

absl::StatusOr<std::string> ListRepr(const List& list) {
  const bool tuple = list.kind == List::Kind::kTuple;
  std::string out = tuple ? "(" : "[";
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out += ", ";
    ASSIGN_OR_RETURN(const std::string item, ToRepr(list.items[i]));
    out += item;
  }
  if (tuple && list.items.size() == 1) out += ',';
  return out + (tuple ? ')' : ']');
}

absl::StatusOr<std::string> DictRepr(const Dict& dict) {
  std::string out = "{";
  for (const auto& [key, value] : dict.items) {
    if (out.size() > 1) out += ", ";
    ASSIGN_OR_RETURN(const std::string key_text, ToRepr(key));
    ASSIGN_OR_RETURN(const std::string value_text, ToRepr(value));
    out += key_text + ": " + value_text;
  }
  return out + "}";
}

// Start, and number of items, of a Python slice.
struct SliceRange {
  int64_t start;
  int64_t step;
  int64_t count;
};

absl::StatusOr<SliceRange> ResolveSlice(const Value& start, const Value& stop, const Value& step,
                                        int64_t length) {
  SliceRange range{0, 1, 0};
  const auto given = [](const Value& v) { return !v.IsNone(); };
  if (given(step)) {
    ASSIGN_OR_RETURN(range.step, ToInt(step, "a slice's step"));
  }
  if (range.step == 0) return Fail("a slice's step must not be zero");
  range.step = std::clamp<int64_t>(range.step, -(int64_t{1} << 40), int64_t{1} << 40);
  const bool forward = range.step > 0;
  const int64_t low = forward ? 0 : -1;
  const int64_t high = forward ? length : length - 1;
  const auto resolve = [&](const Value& value, int64_t otherwise) -> absl::StatusOr<int64_t> {
    if (!given(value)) return otherwise;
    ASSIGN_OR_RETURN(int64_t index, ToInt(value, "a slice's index"));
    if (index < 0) index += length;
    return std::clamp(index, low, high);
  };
  ASSIGN_OR_RETURN(range.start, resolve(start, forward ? low : high));
  ASSIGN_OR_RETURN(const int64_t end, resolve(stop, forward ? high : low));
  const int64_t distance = forward ? end - range.start : range.start - end;
  const int64_t stride = forward ? range.step : -range.step;
  range.count = distance <= 0 ? 0 : (distance + stride - 1) / stride;
  return range;
}

}  // namespace

absl::Status UseUndefined(const Value& value) {
  return value.IsUndefined() ? Fail("{}", value.why()) : absl::OkStatus();
}

absl::StatusOr<int64_t> ToInt(const Value& value, std::string_view what) {
  if (value.IsIntegral()) return value.AsInt();
  RETURN_IF_ERROR(UseUndefined(value));
  return Fail("{} must be an integer, not '{}'", what, value.TypeName());
}

bool IsTrue(const Value& value) {
  if (value.IsUndefined() || value.IsNone()) return false;
  if (value.IsNumber()) return value.AsDouble() != 0;
  if (value.IsText()) return !value.str().empty();
  if (const List* list = value.list())
    return list->kind == List::Kind::kGenerator || !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  return true;
}

bool AreEqual(const Value& a, const Value& b) {
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsIntegral() && b.IsIntegral()) return a.AsInt() == b.AsInt();
    return a.AsDouble() == b.AsDouble();
  }
  if (a.IsText() && b.IsText()) return a.str() == b.str();
  if (a.IsNone() || a.IsUndefined()) {
    return a.IsNone() == b.IsNone() && a.IsUndefined() == b.IsUndefined();
  }
  if (a.list() != nullptr && b.list() != nullptr) {
    if (a.list() == b.list()) return true;
    return a.list()->kind == b.list()->kind && IsSequence(a) &&
           SameItems(a.list()->items, b.list()->items);
  }
  if (a.dict() != nullptr && b.dict() != nullptr) return SameDicts(*a.dict(), *b.dict());
  if (a.ns() != nullptr) return a.ns() == b.ns();
  if (a.callable() != nullptr) return a.callable() == b.callable();
  return a.loop() != nullptr && a.loop() == b.loop();
}

absl::StatusOr<bool> IsLess(const Value& a, const Value& b) {
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsIntegral() && b.IsIntegral()) return a.AsInt() < b.AsInt();
    return a.AsDouble() < b.AsDouble();
  }
  if (a.IsText() && b.IsText()) return a.str() < b.str();
  if (IsSequence(a) && IsSequence(b) && a.list()->kind == b.list()->kind) {
    const auto& x = a.list()->items;
    const auto& y = b.list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!AreEqual(x[i], y[i])) return IsLess(x[i], y[i]);
    }
    return x.size() < y.size();
  }
  RETURN_IF_ERROR(UseUndefined(a));
  RETURN_IF_ERROR(UseUndefined(b));
  return Fail("'{}' and '{}' have no order", a.TypeName(), b.TypeName());
}

absl::StatusOr<bool> Compare(std::string_view op, const Value& a, const Value& b, Budget* budget) {
  if (a.IsText() && b.IsText()) budget->Work(std::ssize(a.str()));
  if (op == "==") return AreEqual(a, b);
  if (op == "!=") return !AreEqual(a, b);
  if (op == "<") return IsLess(a, b);
  if (op == ">") return IsLess(b, a);
  if (op == "<=" || op == ">=") {
    ASSIGN_OR_RETURN(const bool less, op == "<=" ? IsLess(a, b) : IsLess(b, a));
    return less || AreEqual(a, b);
  }
  ASSIGN_OR_RETURN(const bool in, IsIn(a, b, budget));
  return in == (op == "in");
}

absl::StatusOr<Value> Arithmetic(std::string_view op, const Value& a, const Value& b,
                                 Budget* budget) {
  if (a.IsNumber() && b.IsNumber()) return Numbers(op, a, b);
  if (op == "%" && a.IsText()) {
    ASSIGN_OR_RETURN(std::string text, PercentFormat(a.str(), b, budget));
    return Value::MakeText(std::move(text), budget);
  }
  if (op == "+" && a.IsText() && b.IsText()) return Value::MakeText(a.str() + b.str(), budget);
  if (op == "+" && IsSequence(a) && IsSequence(b) && a.list()->kind == b.list()->kind) {
    return Join(a, b, budget);
  }
  if (op == "*" && (a.IsText() || IsSequence(a)) && b.IsIntegral())
    return Repeat(a, b.AsInt(), budget);
  if (op == "*" && (b.IsText() || IsSequence(b)) && a.IsIntegral())
    return Repeat(b, a.AsInt(), budget);
  return Unsupported(op, a, b);
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.IsFloat()) return Value(-value.AsDouble());
  if (value.IsIntegral()) {
    if (value.AsInt() == INT64_MIN) return Overflow();
    return Value(-value.AsInt());
  }
  RETURN_IF_ERROR(UseUndefined(value));
  return Fail("unsupported operand type for -: '{}'", value.TypeName());
}

absl::StatusOr<Value> Slice(const Value& value, const Value& start, const Value& stop,
                            const Value& step, Budget* budget) {
  RETURN_IF_ERROR(UseUndefined(value));
  const List* const list = value.list();
  const bool sliceable =
      value.IsText() || IsSequence(value) || (list != nullptr && list->kind == List::Kind::kRange);
  if (!sliceable) return Fail("'{}' cannot be sliced", value.TypeName());
  const int64_t length = value.IsText() ? value.text()->length : std::ssize(list->items);
  ASSIGN_OR_RETURN(const SliceRange range, ResolveSlice(start, stop, step, length));
  budget->Work(range.count * 8);
  if (!value.IsText()) {
    std::vector<Value> items;
    for (int64_t i = 0; i < range.count; ++i)
      items.push_back(list->items[range.start + i * range.step]);
    return MakeList(list->kind == List::Kind::kTuple ? List::Kind::kTuple : List::Kind::kList,
                    std::move(items), budget);
  }
  const std::string& text = value.str();
  std::string out;
  if (value.text()->ascii()) {
    for (int64_t i = 0; i < range.count; ++i) out += text[range.start + i * range.step];
  } else {
    budget->Work(length * 8);
    const std::vector<size_t> at = CharacterOffsets(text);
    for (int64_t i = 0; i < range.count; ++i) {
      const size_t c = range.start + i * range.step;
      out.append(text, at[c], at[c + 1] - at[c]);
    }
  }
  return Value::MakeText(std::move(out), budget);
}

absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Budget* budget) {
  if (value.IsUndefined()) return std::vector<Value>();
  if (List* const list = value.list()) {
    budget->Work(std::ssize(list->items) * 8);
    RETURN_IF_ERROR(list->error);
    if (list->kind == List::Kind::kGenerator) return std::exchange(list->items, {});
    return list->items;
  }
  std::vector<Value> items;
  if (const Dict* const dict = value.dict()) {
    budget->Work(std::ssize(dict->items) * 8);
    for (const auto& [key, _] : dict->items) items.push_back(key);
    return items;
  }
  if (value.IsText()) {
    constexpr int64_t kBytesEach = 200;  // until the caller has them in the budget
    RETURN_IF_ERROR(budget->CheckRoom(value.text()->length * kBytesEach));
    const std::vector<size_t> at = CharacterOffsets(value.str());
    for (size_t i = 0; i + 1 < at.size(); ++i) {
      items.push_back(Value::MakeText(value.str().substr(at[i], at[i + 1] - at[i]), budget));
    }
    return items;
  }
  return Fail("'{}' is not iterable", value.TypeName());
}

absl::StatusOr<int64_t> Length(const Value& value) {
  if (value.IsUndefined()) return 0;
  if (value.IsText()) return value.text()->length;
  if (value.list() != nullptr && value.list()->kind != List::Kind::kGenerator) {
    return std::ssize(value.list()->items);
  }
  if (value.dict() != nullptr) return std::ssize(value.dict()->items);
  if (value.loop() != nullptr) return std::ssize(*value.loop()->items);
  return Fail("'{}' has no length", value.TypeName());
}

absl::StatusOr<std::string> ToText(const Value& value) {
  if (value.IsText()) return value.str();
  if (value.IsUndefined()) return std::string();
  return ToRepr(value);
}

absl::StatusOr<std::string> ToRepr(const Value& value) {
  if (value.IsUndefined()) return std::string("Undefined");
  if (value.IsNone()) return std::string("None");
  if (value.IsBool()) return std::string(value.AsInt() != 0 ? "True" : "False");
  if (value.IsInt()) return fmt::format("{}", value.AsInt());
  if (value.IsFloat()) return FloatToString(value.AsDouble());
  if (value.IsText()) return Repr(value.str());
  if (value.dict() != nullptr) return DictRepr(*value.dict());
  if (const List* const list = value.list()) {
    if (list->kind == List::Kind::kRange) return list->label;
    if (list->kind != List::Kind::kGenerator) {
      ASSIGN_OR_RETURN(std::string text, ListRepr(*list));
      return list->kind == List::Kind::kView ? fmt::format("{}({})", list->label, text) : text;
    }
  }
  return Fail("a '{}' has no text (a list, perhaps: '| list'?)", value.TypeName());
}

}  // namespace hgrn2::chat
