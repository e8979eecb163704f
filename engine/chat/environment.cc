#include "engine/chat/environment.h"

#include <chrono>
#include <utility>

#include "base/status.h"
#include "engine/chat/format.h"
#include "engine/chat/methods.h"
#include "engine/chat/operators.h"
#include "engine/chat/text.h"

namespace hgrn2::chat {
namespace {

template <typename... Parts>
absl::Status Fail(fmt::format_string<Parts...> format, Parts&&... parts) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, format, std::forward<Parts>(parts)...);
}

Value MakeCallable(std::string name, std::function<absl::StatusOr<Value>(const Args&)> call,
                   int32_t depth = 0) {
  return Value(std::make_shared<const Callable>(Callable{std::move(name), std::move(call), depth}));
}

Value Missing(const Value& value, std::string_view name) {
  return Value::MakeUndefined(
      fmt::format("'{} object' has no attribute {}", value.TypeName(), Repr(name)));
}

// A method as a value, not called at once.
Value BindMethod(const Value& value, const std::string& name, Budget* budget) {
  return MakeCallable(
      name,
      [value, name, budget](const Args& args) { return CallMethod(value, name, args, budget); },
      value.depth() + 1);
}

absl::StatusOr<Value> CallCycle(const Loop& loop, const Args& args) {
  if (args.positional.empty() || !args.named.empty())
    return Fail("loop.cycle() needs items to cycle through");
  return args.positional[loop.index0 % std::ssize(args.positional)];
}

absl::StatusOr<Value> Changed(Loop* loop, const Args& args) {
  for (const Value& value : args.positional) {
    // Whatever could refer back to the loop would keep it alive for ever.
    if (!value.IsText() && !value.IsNumber() && !value.IsNone() && !value.IsUndefined()) {
      return Fail("loop.changed() is supported for texts and numbers, not for '{}'",
                  value.TypeName());
    }
  }
  bool same = loop->has_changed && loop->changed.size() == args.positional.size();
  for (size_t i = 0; same && i < args.positional.size(); ++i) {
    same = AreEqual(loop->changed[i], args.positional[i]);
  }
  loop->has_changed = true;
  loop->changed = args.positional;
  return Value(!same);
}

Value LoopAttribute(const Value& value, const std::string& name) {
  Loop& loop = *value.loop();
  const int64_t length = std::ssize(*loop.items);
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "revindex") return Value(length - loop.index0);
  if (name == "revindex0") return Value(length - loop.index0 - 1);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.index0 + 1 == length);
  if (name == "length") return Value(length);
  if (name == "depth") return Value(int64_t{1});  // recursive loops are not supported
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem") {
    if (loop.index0 == 0) return Value::MakeUndefined("there is no previous item");
    return (*loop.items)[loop.index0 - 1];
  }
  if (name == "nextitem") {
    if (loop.index0 + 1 >= length) return Value::MakeUndefined("there is no next item");
    return (*loop.items)[loop.index0 + 1];
  }
  if (name == "cycle") {
    return MakeCallable(
        name, [value](const Args& args) { return CallCycle(*value.loop(), args); }, loop.depth + 1);
  }
  if (name == "changed") {
    return MakeCallable(
        name, [value](const Args& args) { return Changed(value.loop(), args); }, loop.depth + 1);
  }
  return Missing(value, name);
}

absl::StatusOr<Value> Range(const Args& args, Budget* budget) {
  constexpr int64_t kMaxRange = 100'000;  // the sandbox's
  ASSIGN_OR_RETURN(const auto bound, BindArgs("range", args, {"start", "stop", "step"}, 1));
  int64_t start = 0;
  int64_t step = 1;
  ASSIGN_OR_RETURN(int64_t stop, ToInt(bound[0], "range's argument"));
  if (!bound[1].IsUndefined()) {
    start = stop;
    ASSIGN_OR_RETURN(stop, ToInt(bound[1], "range's argument"));
  }
  if (!bound[2].IsUndefined()) {
    ASSIGN_OR_RETURN(step, ToInt(bound[2], "range's argument"));
  }
  if (step == 0) return Fail("range's step must not be zero");
  const double count =
      (static_cast<double>(stop) - static_cast<double>(start)) / static_cast<double>(step);
  if (count > kMaxRange) return Fail("a range has more than {} items", kMaxRange);
  std::vector<Value> items;
  for (int64_t i = 0; static_cast<double>(i) < count; ++i) items.emplace_back(start + i * step);
  auto range = std::make_shared<List>(List::Kind::kRange, std::move(items), budget);
  range->label = step == 1 ? fmt::format("range({}, {})", start, stop)
                           : fmt::format("range({}, {}, {})", start, stop, step);
  return Value(std::move(range));
}

// dict(mapping or pairs, name=value ...): its items.
absl::Status ForEachItem(const char* function, const Args& args, Budget* budget,
                         const std::function<absl::Status(const Value&, const Value&)>& add) {
  if (args.positional.size() > 1)
    return Fail("{}() takes at most one argument without a name", function);
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (const Dict* const dict = from.dict()) {
      for (const auto& [key, value] : dict->items) RETURN_IF_ERROR(add(key, value));
    } else {
      ASSIGN_OR_RETURN(const std::vector<Value> pairs, Iterate(from, budget));
      for (const Value& pair : pairs) {
        if (pair.list() == nullptr || pair.list()->items.size() != 2) {
          return Fail("{}() needs a dict or pairs", function);
        }
        RETURN_IF_ERROR(add(pair.list()->items[0], pair.list()->items[1]));
      }
    }
  }
  for (const auto& [name, value] : args.named) {
    RETURN_IF_ERROR(add(Value::MakeText(name, budget), value));
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> MakeDict(const Args& args, Budget* budget) {
  auto dict = std::make_shared<Dict>(budget);
  RETURN_IF_ERROR(ForEachItem("dict", args, budget, [&](const Value& key, const Value& value) {
    return dict->Set(key, value) ? absl::OkStatus()
                                 : Fail("a '{}' cannot be a key", key.TypeName());
  }));
  Value value{std::shared_ptr<const Dict>(std::move(dict))};
  RETURN_IF_ERROR(CheckDepth(value));
  return value;
}

absl::StatusOr<Value> MakeNamespace(const Args& args, Budget* budget, Namespaces* namespaces) {
  auto result = std::make_shared<Namespace>();
  namespaces->push_back(result);
  budget->Hold(100);  // never given back: they live to the end
  RETURN_IF_ERROR(ForEachItem("namespace", args, budget, [&](const Value& key, const Value& value) {
    if (!key.IsText()) return Fail("a namespace's attributes have names");
    for (auto& [name, old] : result->attributes) {
      if (name == key.str()) {
        old = value;
        return absl::OkStatus();
      }
    }
    result->attributes.emplace_back(key.str(), value);
    return absl::OkStatus();
  }));
  return Value(std::move(result));
}

absl::StatusOr<Value> RaiseException(const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("raise_exception", args, {"message"}, 1));
  ASSIGN_OR_RETURN(const std::string message, ToText(bound[0]));
  absl::Status status = Fail("{}", message);
  status.SetPayload(kRaisedPayload, absl::Cord("1"));
  return status;
}

absl::StatusOr<Value> StrftimeNow(const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("strftime_now", args, {"format"}, 1));
  if (!bound[0].IsText()) return Fail("strftime_now() needs a text");
  const auto& clock = budget->options().now;
  const int64_t now = clock ? clock()
                            : std::chrono::duration_cast<std::chrono::seconds>(
                                  std::chrono::system_clock::now().time_since_epoch())
                                  .count();
  ASSIGN_OR_RETURN(std::string text, FormatTime(bound[0].str(), now));
  return Value::MakeText(std::move(text), budget);
}

}  // namespace

Value GetAttribute(const Value& value, const std::string& name, Budget* budget) {
  if (value.loop() != nullptr) return LoopAttribute(value, name);
  if (const Namespace* const ns = value.ns()) {
    for (const auto& [attribute, held] : ns->attributes) {
      if (attribute == name) return held;
    }
    return Missing(value, name);
  }
  if (HasMethod(value, name)) return BindMethod(value, name, budget);
  if (const Dict* const dict = value.dict()) {
    if (const Value* const found = dict->Find(name)) return *found;
  }
  return Missing(value, name);
}

Value GetItem(const Value& value, const Value& key, Budget* budget) {
  const List* const list = value.list();
  const bool indexed = value.IsText() || (list != nullptr && list->kind != List::Kind::kGenerator &&
                                          list->kind != List::Kind::kView);
  if (indexed && key.IsIntegral()) {
    const int64_t length = value.IsText() ? value.text()->length : std::ssize(list->items);
    int64_t index = key.AsInt();
    if (index < 0) index += length;
    if (index < 0 || index >= length) {
      return Value::MakeUndefined(
          fmt::format("'{} object' has no item {}", value.TypeName(), key.AsInt()));
    }
    if (list != nullptr) return list->items[index];
    if (value.text()->ascii()) return Value::MakeText(value.str().substr(index, 1), budget);
    budget->Work(length * 8);
    const std::vector<size_t> at = CharacterOffsets(value.str());
    return Value::MakeText(value.str().substr(at[index], at[index + 1] - at[index]), budget);
  }
  if (const Dict* const dict = value.dict()) {
    if (const Value* const found = dict->Find(key)) return *found;
  }
  if (key.IsText()) return GetAttribute(value, key.str(), budget);
  return Value::MakeUndefined(fmt::format("'{} object' has no such item", value.TypeName()));
}

bool IsGlobal(std::string_view name) {
  return name == "range" || name == "dict" || name == "namespace" || name == "raise_exception" ||
         name == "strftime_now";
}

Value GetGlobal(std::string_view name, Budget* budget, Namespaces* namespaces) {
  if (name == "range")
    return MakeCallable("range", [budget](const Args& a) { return Range(a, budget); });
  if (name == "dict")
    return MakeCallable("dict", [budget](const Args& a) { return MakeDict(a, budget); });
  if (name == "namespace") {
    return MakeCallable("namespace", [budget, namespaces](const Args& a) {
      return MakeNamespace(a, budget, namespaces);
    });
  }
  if (name == "raise_exception") return MakeCallable("raise_exception", RaiseException);
  return MakeCallable("strftime_now", [budget](const Args& a) { return StrftimeNow(a, budget); });
}

}  // namespace hgrn2::chat
