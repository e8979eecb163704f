#include "engine/chat/value.h"

#include <algorithm>
#include <cmath>

#include "engine/chat/limits.h"
#include "engine/chat/text.h"

namespace hgrn2::chat {
namespace {

constexpr int64_t kNodeBytes = 64;  // allocation, counters, and the like

// Equal keys have equal encodings (1, 1.0 and true are one key); "" if it cannot be a key.
std::string EncodeKey(const Value& key) {
  if (key.IsText()) return fmt::format("s{}", key.str());
  if (key.IsNone()) return "n";
  if (key.IsIntegral()) return fmt::format("i{}", key.AsInt());
  if (key.IsFloat()) {
    const double number = key.AsDouble();
    const bool integral = std::trunc(number) == number && std::abs(number) < 1e15;
    return integral ? fmt::format("i{}", static_cast<int64_t>(number)) : fmt::format("f{}", number);
  }
  return "";
}

}  // namespace

Value Value::MakeUndefined(std::string why) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(why))});
}

Value Value::MakeText(std::string text, Budget* budget) {
  return Value(std::make_shared<const Text>(std::move(text), budget));
}

const std::string& Value::why() const {
  static const auto* const nothing = new std::string("the value is undefined");
  const auto& why = std::get<Undefined>(data_).why;
  return why == nullptr ? *nothing : *why;
}

const std::string& Value::str() const { return text()->value; }

int32_t Value::depth() const {
  if (const List* l = list()) return l->depth;
  if (const Dict* d = dict()) return d->depth;
  if (const Callable* c = callable()) return c->depth;
  if (const Loop* l = loop()) return l->depth;
  return 0;
}

const char* Value::TypeName() const {
  if (IsUndefined()) return "Undefined";
  if (IsNone()) return "NoneType";
  if (IsBool()) return "bool";
  if (IsInt()) return "int";
  if (IsFloat()) return "float";
  if (IsText()) return "str";
  if (dict() != nullptr) return "dict";
  if (ns() != nullptr) return "Namespace";
  if (callable() != nullptr) return "function";
  if (loop() != nullptr) return "LoopContext";
  switch (list()->kind) {
    case List::Kind::kList:
      return "list";
    case List::Kind::kTuple:
      return "tuple";
    case List::Kind::kRange:
      return "range";
    case List::Kind::kView:
      return list()->label.c_str();
    case List::Kind::kGenerator:
      break;
  }
  return "generator";
}

Text::Text(std::string s, Budget* b)
    : value(std::move(s)),
      length(CountCharacters(value)),
      budget(b),
      bytes(Take(b, kNodeBytes + static_cast<int64_t>(value.size()))) {}

List::List(Kind k, std::vector<Value> v, Budget* b)
    : kind(k),
      items(std::move(v)),
      depth(1),
      budget(b),
      bytes(Take(b, kNodeBytes + static_cast<int64_t>(items.size() * sizeof(Value)))) {
  for (const Value& item : items) depth = std::max(depth, item.depth() + 1);
}

bool Dict::Set(const Value& key, Value value) {
  std::string encoded = EncodeKey(key);
  if (encoded.empty()) return false;
  depth = std::max(depth, value.depth() + 1);
  const auto [at, is_new] = index.try_emplace(std::move(encoded), items.size());
  if (!is_new) {
    items[at->second].second = std::move(value);
    return true;
  }
  bytes += Take(budget, kNodeBytes + static_cast<int64_t>(at->first.size() + 2 * sizeof(Value)));
  items.emplace_back(key, std::move(value));
  return true;
}

const Value* Dict::Find(const Value& key) const {
  const auto at = index.find(EncodeKey(key));
  return at == index.end() ? nullptr : &items[at->second].second;
}

const Value* Dict::Find(std::string_view key) const {
  const auto at = index.find(fmt::format("s{}", key));
  return at == index.end() ? nullptr : &items[at->second].second;
}

absl::Status CheckDepth(const Value& value) {
  if (value.depth() <= kMaxValueDepth) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kInvalidArgument,
                    "lists and dicts are nested deeper than {} levels", kMaxValueDepth);
}

Value MakeList(List::Kind kind, std::vector<Value> items, Budget* budget) {
  return Value(std::make_shared<List>(kind, std::move(items), budget));
}

absl::StatusOr<std::vector<Value>> BindArgs(const char* function, const Args& args,
                                            std::initializer_list<const char*> names,
                                            size_t required) {
  const auto fail = [&](std::string_view what) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}() {}", function, what);
  };
  if (args.positional.size() > names.size()) {
    return fail(
        fmt::format("takes at most {} arguments ({} given)", names.size(), args.positional.size()));
  }
  std::vector<Value> bound = args.positional;
  bound.resize(names.size());
  std::vector<bool> given(names.size(), false);
  std::fill_n(given.begin(), args.positional.size(), true);
  for (const auto& [name, value] : args.named) {
    const auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end()) return fail(fmt::format("has no argument '{}'", name));
    const size_t i = at - names.begin();
    if (given[i]) return fail(fmt::format("got argument '{}' twice", name));
    given[i] = true;
    bound[i] = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!given[i]) return fail(fmt::format("needs its argument '{}'", names.begin()[i]));
  }
  return bound;
}

}  // namespace hgrn2::chat
