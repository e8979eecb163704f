#include "engine/chat/tests.h"

#include <cmath>

#include "base/status.h"
#include "engine/chat/filters.h"
#include "engine/chat/named.h"
#include "engine/chat/operators.h"
#include "engine/chat/text.h"

namespace hgrn2::chat {
namespace {

using Result = absl::StatusOr<bool>;

template <bool (*kPredicate)(const Value&)>
Result Unary(const Value& value, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("the test", args, {}, 0).status());
  return kPredicate(value);
}

bool IsDefined(const Value& v) { return !v.IsUndefined(); }
bool IsUndefinedTest(const Value& v) { return v.IsUndefined(); }
bool IsNoneTest(const Value& v) { return v.IsNone(); }
bool IsBoolean(const Value& v) { return v.IsBool(); }
bool IsTrueTest(const Value& v) { return v.IsBool() && v.AsInt() != 0; }
bool IsFalseTest(const Value& v) { return v.IsBool() && v.AsInt() == 0; }
bool IsInteger(const Value& v) { return v.IsInt(); }
bool IsFloatTest(const Value& v) { return v.IsFloat(); }
bool IsNumberTest(const Value& v) { return v.IsNumber(); }
bool IsString(const Value& v) { return v.IsText(); }
bool IsMapping(const Value& v) { return v.dict() != nullptr; }
bool IsCallable(const Value& v) { return v.callable() != nullptr; }
bool IsIterable(const Value& v) {
  return v.IsText() || v.list() != nullptr || v.dict() != nullptr || v.loop() != nullptr ||
         v.IsUndefined();
}
// What has a length and items: not views and generators. (Undefined values have both in Jinja2.)
bool IsSequence(const Value& v) {
  if (const List* const list = v.list()) {
    return list->kind != List::Kind::kView && list->kind != List::Kind::kGenerator;
  }
  return v.IsText() || v.dict() != nullptr || v.IsUndefined();
}

template <CharClass kClass>
Result HasCase(const Value& value, const Args&, Budget*) {
  ASSIGN_OR_RETURN(const std::string text, ToText(value));
  return Is(kClass, text);
}

template <int kRest>
Result Parity(const Value& value, const Args&, Budget*) {
  if (value.IsFloat()) return std::abs(std::fmod(value.AsDouble(), 2)) == kRest;
  ASSIGN_OR_RETURN(const int64_t number, ToInt(value, "what is even or odd"));
  return (number & 1) == kRest;
}

Result DivisibleBy(const Value& value, const Args& args, Budget*) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("divisibleby", args, {"num"}, 1));
  ASSIGN_OR_RETURN(const int64_t number, ToInt(value, "what is divisible"));
  ASSIGN_OR_RETURN(const int64_t divisor, ToInt(bound[0], "the divisor"));
  if (divisor == 0) return MakeStatus(absl::StatusCode::kInvalidArgument, "division by zero");
  return divisor == -1 || number % divisor == 0;
}

// None, booleans and small numbers are the same object if equal; containers only if they are one.
Result SameAs(const Value& value, const Args& args, Budget*) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("sameas", args, {"other"}, 1));
  const Value& other = bound[0];
  if (value.list() != nullptr || other.list() != nullptr) return value.list() == other.list();
  if (value.dict() != nullptr || other.dict() != nullptr) return value.dict() == other.dict();
  return value.IsBool() == other.IsBool() && value.IsFloat() == other.IsFloat() &&
         AreEqual(value, other);
}

// The operators as tests; kOps is an index into the names.
constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">=", "in"};
template <int kOperator>
Result ByOperator(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("the test", args, {"other"}, 1));
  return Compare(kOperators[kOperator], value, bound[0], budget);
}

Result NamesFilter(const Value& value, const Args&, Budget*) {
  return value.IsText() && FindFilter(value.str()) != nullptr;
}
Result NamesTest(const Value& value, const Args&, Budget*) {
  return value.IsText() && FindTest(value.str()) != nullptr;
}

constexpr Named<TestFunction> kTests[] = {
    {"defined", Unary<IsDefined>},
    {"undefined", Unary<IsUndefinedTest>},
    {"none", Unary<IsNoneTest>},
    {"boolean", Unary<IsBoolean>},
    {"true", Unary<IsTrueTest>},
    {"false", Unary<IsFalseTest>},
    {"integer", Unary<IsInteger>},
    {"float", Unary<IsFloatTest>},
    {"number", Unary<IsNumberTest>},
    {"string", Unary<IsString>},
    {"mapping", Unary<IsMapping>},
    {"callable", Unary<IsCallable>},
    {"iterable", Unary<IsIterable>},
    {"sequence", Unary<IsSequence>},
    {"lower", HasCase<CharClass::kLower>},
    {"upper", HasCase<CharClass::kUpper>},
    {"even", Parity<0>},
    {"odd", Parity<1>},
    {"divisibleby", DivisibleBy},
    {"sameas", SameAs},
    {"filter", NamesFilter},
    {"test", NamesTest},
    {"eq", ByOperator<0>},
    {"equalto", ByOperator<0>},
    {"==", ByOperator<0>},
    {"ne", ByOperator<1>},
    {"!=", ByOperator<1>},
    {"lt", ByOperator<2>},
    {"lessthan", ByOperator<2>},
    {"<", ByOperator<2>},
    {"le", ByOperator<3>},
    {"<=", ByOperator<3>},
    {"gt", ByOperator<4>},
    {"greaterthan", ByOperator<4>},
    {">", ByOperator<4>},
    {"ge", ByOperator<5>},
    {">=", ByOperator<5>},
    {"in", ByOperator<6>},
};

}  // namespace

TestFunction FindTest(std::string_view name) { return FindNamed(kTests, name); }

}  // namespace hgrn2::chat
