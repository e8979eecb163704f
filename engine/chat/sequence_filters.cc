// Filters on lists and dicts.
#include <algorithm>
#include <charconv>
#include <string>

#include "base/status.h"
#include "engine/chat/environment.h"
#include "engine/chat/filters.h"
#include "engine/chat/named.h"
#include "engine/chat/operators.h"
#include "engine/chat/tests.h"
#include "engine/chat/text.h"

namespace hgrn2::chat {
namespace {

using Result = absl::StatusOr<Value>;

template <typename... Parts>
absl::Status Fail(fmt::format_string<Parts...> format, Parts&&... parts) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, format, std::forward<Parts>(parts)...);
}

// For order and equality without regard to case.
Value IgnoreCase(const Value& value, Budget* budget) {
  return value.IsText() ? Value::MakeText(Lower(value.str()), budget) : value;
}

Result First(const Value& value, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("first", args, {}, 0).status());
  if (value.list() == nullptr) {
    if (value.IsText() && value.text()->length > 0)
      return GetItem(value, Value(int64_t{0}), budget);
    ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
    return items.empty() ? Value::MakeUndefined("No first item, sequence was empty.") : items[0];
  }
  List& list = *value.list();
  RETURN_IF_ERROR(list.error);
  if (list.items.empty()) return Value::MakeUndefined("No first item, sequence was empty.");
  Value first = list.items.front();
  if (list.kind == List::Kind::kGenerator) list.items.erase(list.items.begin());
  return first;
}

Result Last(const Value& value, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("last", args, {}, 0).status());
  if (value.list() != nullptr && value.list()->kind == List::Kind::kGenerator) {
    return Fail("'generator' cannot be reversed (a list, perhaps: '| list'?)");
  }
  if (value.IsText() && value.text()->length > 0) return GetItem(value, Value(int64_t{-1}), budget);
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
  return items.empty() ? Value::MakeUndefined("No last item, sequence was empty.") : items.back();
}

Result ToList(const Value& value, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("list", args, {}, 0).status());
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value, budget));
  return MakeList(List::Kind::kList, std::move(items), budget);
}

Result Reverse(const Value& value, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("reverse", args, {}, 0).status());
  if (value.IsText()) {
    const Value none = Value::MakeNone();
    return Slice(value, none, none, Value(int64_t{-1}), budget);
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value, budget));
  std::reverse(items.begin(), items.end());
  return MakeList(List::Kind::kGenerator, std::move(items), budget);
}

Result Items(const Value& value, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("items", args, {}, 0).status());
  std::vector<Value> items;
  if (!value.IsUndefined()) {
    if (value.dict() == nullptr) return Fail("items needs a dict, not '{}'", value.TypeName());
    for (const auto& [key, item] : value.dict()->items) {
      items.push_back(MakeList(List::Kind::kTuple, {key, item}, budget));
    }
  }
  return MakeList(List::Kind::kGenerator, std::move(items), budget);
}

Result Join(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("join", args, {"d", "attribute"}, 0));
  ASSIGN_OR_RETURN(const std::string separator, ToText(bound[0]));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const Value item, GetPath(items[i], bound[1], budget));
    ASSIGN_OR_RETURN(const std::string text, ToText(item));
    if (i > 0) out += separator;
    out += text;
    RETURN_IF_ERROR(budget->CheckRoom(std::ssize(out)));
  }
  return Value::MakeText(std::move(out), budget);
}

Result Map(const Value& value, const Args& args, Budget* budget) {
  std::vector<Value> mapped;
  if (!IsTrue(value)) return MakeList(List::Kind::kGenerator, {}, budget);
  if (args.positional.empty()) {
    ASSIGN_OR_RETURN(const auto bound, BindArgs("map", args, {"attribute", "default"}, 1));
    ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
    for (const Value& item : items) {
      ASSIGN_OR_RETURN(Value result, GetPath(item, bound[0], budget));
      if (result.IsUndefined() && !bound[1].IsNone() && !bound[1].IsUndefined()) result = bound[1];
      mapped.push_back(std::move(result));
    }
    return MakeList(List::Kind::kGenerator, std::move(mapped), budget);
  }
  const Value& name = args.positional[0];
  const FilterFunction filter = name.IsText() ? FindFilter(name.str()) : nullptr;
  if (filter == nullptr) return Fail("map: there is no such filter, or it is not supported");
  const Args rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
  for (const Value& item : items) {
    RETURN_IF_ERROR(budget->Step());
    ASSIGN_OR_RETURN(Value result, filter(item, rest, budget));
    mapped.push_back(std::move(result));
  }
  return MakeList(List::Kind::kGenerator, std::move(mapped), budget);
}

// select, reject, selectattr, rejectattr.
template <bool kKeep, bool kAttribute>
Result Select(const Value& value, const Args& args, Budget* budget) {
  constexpr size_t kOffset = kAttribute ? 1 : 0;
  if (!IsTrue(value)) return MakeList(List::Kind::kGenerator, {}, budget);
  if (args.positional.size() < kOffset) return Fail("selectattr needs the name of an attribute");
  TestFunction test = nullptr;
  Args rest;
  rest.named = args.named;
  if (args.positional.size() > kOffset) {
    const Value& name = args.positional[kOffset];
    test = name.IsText() ? FindTest(name.str()) : nullptr;
    if (test == nullptr) return Fail("select: there is no such test, or it is not supported");
    rest.positional.assign(args.positional.begin() + kOffset + 1, args.positional.end());
  }
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
  std::vector<Value> kept;
  for (const Value& item : items) {
    RETURN_IF_ERROR(budget->Step());
    Value subject = item;
    if (kAttribute) {
      ASSIGN_OR_RETURN(subject, GetPath(item, args.positional[0], budget));
    }
    bool passes = IsTrue(subject);
    if (test != nullptr) {
      ASSIGN_OR_RETURN(passes, test(subject, rest, budget));
    }
    if (passes == kKeep) kept.push_back(item);
  }
  return MakeList(List::Kind::kGenerator, std::move(kept), budget);
}

// Jinja2's generators fail when something goes through them, not when they are made.
template <FilterFunction kFilter>
Result Lazily(const Value& value, const Args& args, Budget* budget) {
  Result result = kFilter(value, args, budget);
  if (result.ok()) return result;
  auto generator = std::make_shared<List>(List::Kind::kGenerator, std::vector<Value>(), budget);
  generator->error = result.status();
  return Value(std::move(generator));
}

struct Keyed {
  std::vector<Value> keys;
  Value item;
};

// Stable, and safe with any comparison: std::stable_sort's predicate must not fail half-way.
absl::StatusOr<std::vector<Value>> SortByKey(std::vector<Keyed> items, bool reverse,
                                             Budget* budget) {
  absl::Status status;
  const auto less = [&](const Keyed& a, const Keyed& b) {
    budget->Work(64);
    for (size_t i = 0; i < a.keys.size() && status.ok(); ++i) {
      if (AreEqual(a.keys[i], b.keys[i])) continue;
      const absl::StatusOr<bool> result = IsLess(a.keys[i], b.keys[i]);
      if (result.ok()) return *result;
      status = result.status();
    }
    return false;
  };
  // Reversed twice, so that equal items keep their order.
  if (reverse) std::reverse(items.begin(), items.end());
  for (size_t i = 1; i < items.size() && status.ok(); ++i) less(items[i - 1], items[i]);
  RETURN_IF_ERROR(status);
  std::stable_sort(items.begin(), items.end(), less);
  RETURN_IF_ERROR(status);
  if (reverse) std::reverse(items.begin(), items.end());
  std::vector<Value> sorted;
  for (Keyed& keyed : items) sorted.push_back(std::move(keyed.item));
  return sorted;
}

Result Sort(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArgs("sort", args, {"reverse", "case_sensitive", "attribute"}, 0));
  std::vector<Value> paths = {bound[2]};
  if (bound[2].IsText()) {
    paths.clear();
    std::string_view rest = bound[2].str();
    while (true) {
      const size_t comma = rest.find(',');
      paths.push_back(Value::MakeText(std::string(rest.substr(0, comma)), budget));
      if (comma == rest.npos) break;
      rest.remove_prefix(comma + 1);
    }
  }
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    Keyed entry{{}, item};
    for (const Value& path : paths) {
      ASSIGN_OR_RETURN(const Value key, GetPath(item, path, budget));
      entry.keys.push_back(IsTrue(bound[1]) ? key : IgnoreCase(key, budget));
    }
    keyed.push_back(std::move(entry));
  }
  ASSIGN_OR_RETURN(std::vector<Value> sorted,
                   SortByKey(std::move(keyed), IsTrue(bound[0]), budget));
  return MakeList(List::Kind::kList, std::move(sorted), budget);
}

Result DictSort(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound,
                   BindArgs("dictsort", args, {"case_sensitive", "by", "reverse"}, 0));
  RETURN_IF_ERROR(UseUndefined(value));
  if (value.dict() == nullptr) return Fail("dictsort needs a dict, not '{}'", value.TypeName());
  std::string by = "key";
  if (!bound[1].IsUndefined()) {
    ASSIGN_OR_RETURN(by, ToText(bound[1]));
  }
  if (by != "key" && by != "value") return Fail("dictsort sorts by \"key\" or \"value\"");
  std::vector<Keyed> keyed;
  for (const auto& [key, item] : value.dict()->items) {
    const Value& subject = by == "key" ? key : item;
    keyed.push_back({{IsTrue(bound[0]) ? subject : IgnoreCase(subject, budget)},
                     MakeList(List::Kind::kTuple, {key, item}, budget)});
  }
  ASSIGN_OR_RETURN(std::vector<Value> sorted,
                   SortByKey(std::move(keyed), IsTrue(bound[2]), budget));
  return MakeList(List::Kind::kList, std::move(sorted), budget);
}

Result Unique(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("unique", args, {"case_sensitive", "attribute"}, 0));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
  Dict seen(budget);
  std::vector<Value> kept;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, GetPath(item, bound[1], budget));
    if (!IsTrue(bound[0])) key = IgnoreCase(key, budget);
    if (seen.Find(key) != nullptr) continue;
    if (!seen.Set(key, Value::MakeNone()))
      return Fail("unique: '{}' cannot be a key", key.TypeName());
    kept.push_back(item);
  }
  return MakeList(List::Kind::kGenerator, std::move(kept), budget);
}

Result Sum(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("sum", args, {"attribute", "start"}, 0));
  Value sum = bound[1].IsUndefined() ? Value(int64_t{0}) : bound[1];
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value number, GetPath(item, bound[0], budget));
    if (sum.IsText()) return Fail("sum cannot add texts");
    ASSIGN_OR_RETURN(sum, Arithmetic("+", sum, number, budget));
  }
  return sum;
}

template <bool kMax>
Result Extreme(const Value& value, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("min", args, {"case_sensitive", "attribute"}, 0));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget));
  if (items.empty()) return Value::MakeUndefined("No aggregated item, sequence was empty.");
  Value best_key;
  const Value* best = nullptr;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, GetPath(item, bound[1], budget));
    if (!IsTrue(bound[0])) key = IgnoreCase(key, budget);
    bool better = best == nullptr;
    if (!better) {
      ASSIGN_OR_RETURN(better, kMax ? IsLess(best_key, key) : IsLess(key, best_key));
    }
    if (better) {
      best = &item;
      best_key = key;
    }
  }
  return *best;
}

constexpr Named<FilterFunction> kFilters[] = {
    {"dictsort", DictSort},
    {"first", First},
    {"items", Lazily<Items>},
    {"join", Join},
    {"last", Last},
    {"list", ToList},
    {"map", Lazily<Map>},
    {"max", Extreme<true>},
    {"min", Extreme<false>},
    {"reject", Lazily<Select<false, false>>},
    {"rejectattr", Lazily<Select<false, true>>},
    {"reverse", Reverse},
    {"select", Lazily<Select<true, false>>},
    {"selectattr", Lazily<Select<true, true>>},
    {"sort", Sort},
    {"sum", Sum},
    {"unique", Lazily<Unique>},
};

}  // namespace

FilterFunction FindSequenceFilter(std::string_view name) { return FindNamed(kFilters, name); }

Result GetPath(const Value& value, const Value& path, Budget* budget) {
  if (path.IsUndefined() || path.IsNone()) return value;
  if (path.IsIntegral()) {
    RETURN_IF_ERROR(UseUndefined(value));
    return GetItem(value, path, budget);
  }
  if (!path.IsText()) return Fail("the name of an attribute must be a text or a number");
  Value at = value;
  std::string_view rest = path.str();
  while (true) {
    RETURN_IF_ERROR(UseUndefined(at));
    const size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = Is(CharClass::kDecimal, part) && parsed.ec == std::errc();
    at = GetItem(at, number ? Value(index) : Value::MakeText(part, budget), budget);
    if (dot == rest.npos) return at;
    rest.remove_prefix(dot + 1);
  }
}

}  // namespace hgrn2::chat
