// The values of chat templates: Python's, as far as templates can tell.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/chat/budget.h"

namespace hgrn2::chat {

class Value;
struct Text;
struct List;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;

// What a name or attribute that does not exist evaluates to. `why` is the error of using it.
struct Undefined {
  std::shared_ptr<const std::string> why;
};
struct None {};

// Cheap to copy; what it refers to does not change (but for namespaces and spent generators).
class Value {
 public:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                   std::shared_ptr<List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                   std::shared_ptr<const Callable>, std::shared_ptr<Loop>>;

  Value() = default;  // undefined
  template <typename T>
  explicit Value(T data) : data_(std::move(data)) {}

  static Value MakeNone() { return Value(None{}); }
  static Value MakeUndefined(std::string why);
  // `budget` is null for values that outlive a rendering: a template's constants.
  static Value MakeText(std::string text, Budget* budget);

  bool IsUndefined() const { return std::holds_alternative<Undefined>(data_); }
  bool IsNone() const { return std::holds_alternative<None>(data_); }
  bool IsBool() const { return std::holds_alternative<bool>(data_); }
  bool IsInt() const { return std::holds_alternative<int64_t>(data_); }
  bool IsFloat() const { return std::holds_alternative<double>(data_); }
  // bool is a number too, as in Python.
  bool IsNumber() const { return IsBool() || IsInt() || IsFloat(); }
  bool IsText() const { return text() != nullptr; }

  const std::string& why() const;  // REQUIRES: IsUndefined
  const Text* text() const { return Get<const Text>(); }
  List* list() const { return Get<List>(); }
  const Dict* dict() const { return Get<const Dict>(); }
  Namespace* ns() const { return Get<Namespace>(); }
  const Callable* callable() const { return Get<const Callable>(); }
  Loop* loop() const { return Get<Loop>(); }
  const std::string& str() const;  // REQUIRES: IsText
  // Of a bool or an int.
  int64_t AsInt() const { return IsBool() ? std::get<bool>(data_) : std::get<int64_t>(data_); }
  bool IsIntegral() const { return IsBool() || IsInt(); }
  double AsDouble() const { return IsFloat() ? std::get<double>(data_) : double(AsInt()); }

  // How deep lists and dicts nest, and what holds them; 0 for everything else.
  int32_t depth() const;
  // Python's name of the type: "str", "int", "dict".
  const char* TypeName() const;

 private:
  template <typename T>
  T* Get() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }
  Data data_;
};

// A string with its length in characters. Valid UTF-8.
struct Text {
  Text(std::string s, Budget* b);
  ~Text() { Give(budget, bytes); }
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;
  bool ascii() const { return length == static_cast<int64_t>(value.size()); }

  const std::string value;
  int64_t length;  // characters
  Budget* const budget;
  const int64_t bytes;  // held from the budget
};

struct List {
  enum class Kind { kList, kTuple, kGenerator, kView, kRange };
  List(Kind k, std::vector<Value> v, Budget* b);
  ~List() { Give(budget, bytes); }
  List(const List&) = delete;
  List& operator=(const List&) = delete;

  const Kind kind;
  std::vector<Value> items;  // a generator's are gone once it was iterated over
  absl::Status error;        // of a generator: what going through it meets
  std::string label;         // a view's type, a range's representation
  int32_t depth;
  Budget* const budget;
  const int64_t bytes;
};

// Keeps the order of insertion. Keys are text, numbers, booleans or none.
struct Dict {
  explicit Dict(Budget* b) : budget(b) {}
  ~Dict() { Give(budget, bytes); }
  Dict(const Dict&) = delete;
  Dict& operator=(const Dict&) = delete;

  // False if `key` is of a type that cannot be a key.
  bool Set(const Value& key, Value value);
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;

  std::vector<std::pair<Value, Value>> items;
  absl::flat_hash_map<std::string, size_t> index;
  int32_t depth = 1;
  Budget* const budget;
  int64_t bytes = 0;
};

// namespace(): the one thing that templates can change.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// A macro, a global function or a method bound to its object.
struct Callable {
  std::string name;
  std::function<absl::StatusOr<Value>(const Args&)> call;
  int32_t depth = 0;  // of what it is bound to
};

// The variable `loop`.
struct Loop {
  std::shared_ptr<const std::vector<Value>> items;
  int64_t index0 = 0;
  int32_t depth = 1;
  std::vector<Value> changed;  // loop.changed's last arguments: texts and numbers only
  bool has_changed = false;
};

// INVALID_ARGUMENT if a list or dict would nest deeper than templates may.
absl::Status CheckDepth(const Value& value);
Value MakeList(List::Kind kind, std::vector<Value> items, Budget* budget);

// Parameters of a function by name. Those not given are undefined.
absl::StatusOr<std::vector<Value>> BindArgs(const char* function, const Args& args,
                                            std::initializer_list<const char*> names,
                                            size_t required);

}  // namespace hgrn2::chat
