#include "engine/chat/methods.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/status.h"
#include "engine/chat/format.h"
#include "engine/chat/named.h"
#include "engine/chat/operators.h"
#include "engine/chat/text.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2::chat {
namespace {

using Method = absl::StatusOr<Value> (*)(const Value& self, const Args& args, Budget* budget);
template <typename... Parts>
absl::Status Fail(fmt::format_string<Parts...> format, Parts&&... parts) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, format, std::forward<Parts>(parts)...);
}

absl::StatusOr<std::string> TextArgument(const char* method, const Value& value) {
  if (value.IsText()) return value.str();
  RETURN_IF_ERROR(UseUndefined(value));
  return Fail("{}() needs a text, not '{}'", method, value.TypeName());
}
Value Made(std::string_view text, Budget* budget) {
  return Value::MakeText(std::string(text), budget);
}

// Methods without arguments.
template <std::string (*kFunction)(std::string_view)>
absl::StatusOr<Value> Map(const Value& self, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("the method", args, {}, 0).status());
  return Value::MakeText(kFunction(self.str()), budget);
}
template <CharClass kClass>
absl::StatusOr<Value> IsClass(const Value& self, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("the method", args, {}, 0).status());
  budget->Work(std::ssize(self.str()));
  return Value(Is(kClass, self.str()));
}

template <bool kLeft, bool kRight>
absl::StatusOr<Value> Strip(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("strip", args, {"chars"}, 0));
  std::string characters;
  if (!bound[0].IsNone() && !args.positional.empty()) {
    ASSIGN_OR_RETURN(characters, TextArgument("strip", bound[0]));
    if (characters.empty()) return self;
    budget->Work(std::ssize(characters) * std::ssize(self.str()));
  }
  std::string_view text = self.str();
  if (kLeft) text = StripLeft(text, characters);
  if (kRight) text = StripRight(text, characters);
  return Made(text, budget);
}

// Pieces between white space, from the left or the right.
std::vector<std::string_view> SplitSpace(std::string_view text, int64_t max, bool from_right) {
  std::vector<std::string_view> parts;
  text = from_right ? StripRight(text) : StripLeft(text);
  while (!text.empty() && (max < 0 || std::ssize(parts) < max)) {
    size_t cut = from_right ? text.size() : 0;
    if (from_right) {
      while (cut > 0) {
        const size_t start = unicode::Previous(text, cut);
        size_t pos = start;
        if (IsSpace(unicode::Next(text, &pos))) break;
        cut = start;
      }
      parts.push_back(text.substr(cut));
      text = StripRight(text.substr(0, cut));
    } else {
      while (cut < text.size()) {
        size_t pos = cut;
        if (IsSpace(unicode::Next(text, &pos))) break;
        cut = pos;
      }
      parts.push_back(text.substr(0, cut));
      text = StripLeft(text.substr(cut));
    }
  }
  if (!text.empty()) parts.push_back(text);
  return parts;
}

std::vector<std::string_view> SplitOn(std::string_view text, std::string_view separator,
                                      int64_t max, bool from_right) {
  std::vector<std::string_view> parts;
  while (max < 0 || std::ssize(parts) < max) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == text.npos) break;
    if (from_right) {
      parts.push_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    } else {
      parts.push_back(text.substr(0, at));
      text.remove_prefix(at + separator.size());
    }
  }
  parts.push_back(text);
  return parts;
}

absl::StatusOr<Value> ToTexts(const std::vector<std::string_view>& parts, Budget* budget) {
  constexpr int64_t kBytesEach = 200;
  RETURN_IF_ERROR(budget->CheckRoom(std::ssize(parts) * kBytesEach));
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(Made(part, budget));
  return MakeList(List::Kind::kList, std::move(items), budget);
}

template <bool kFromRight>
absl::StatusOr<Value> Split(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("split", args, {"sep", "maxsplit"}, 0));
  int64_t max = -1;
  if (!bound[1].IsUndefined()) {
    ASSIGN_OR_RETURN(max, ToInt(bound[1], "maxsplit"));
  }
  std::vector<std::string_view> parts;
  std::string separator;
  if (bound[0].IsNone() || (args.positional.empty() && bound[0].IsUndefined())) {
    parts = SplitSpace(self.str(), max, kFromRight);
  } else {
    ASSIGN_OR_RETURN(separator, TextArgument("split", bound[0]));
    if (separator.empty()) return Fail("split() needs a separator that is not empty");
    parts = SplitOn(self.str(), separator, max, kFromRight);
  }
  if (kFromRight) std::reverse(parts.begin(), parts.end());
  return ToTexts(parts, budget);
}

absl::StatusOr<Value> SplitLinesMethod(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("splitlines", args, {"keepends"}, 0));
  return ToTexts(SplitLines(self.str(), IsTrue(bound[0])), budget);
}

template <bool kFromRight>
absl::StatusOr<Value> Partition(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("partition", args, {"sep"}, 1));
  ASSIGN_OR_RETURN(const std::string separator, TextArgument("partition", bound[0]));
  if (separator.empty()) return Fail("partition() needs a separator that is not empty");
  const std::string& text = self.str();
  const size_t at = kFromRight ? text.rfind(separator) : text.find(separator);
  std::vector<Value> parts;
  if (at == text.npos) {
    parts = {Made("", budget), Made("", budget)};
    parts.insert(kFromRight ? parts.end() : parts.begin(), self);
  } else {
    parts = {Made(text.substr(0, at), budget), bound[0],
             Made(text.substr(at + separator.size()), budget)};
  }
  return MakeList(List::Kind::kTuple, std::move(parts), budget);
}

// self[start:end], as find, count and startswith take it, and where it begins.
absl::StatusOr<Value> Within(const Value& self, const std::vector<Value>& bound, Budget* budget) {
  const Value none = Value::MakeNone();
  if (bound[1].IsUndefined() && bound[2].IsUndefined()) return self;
  return Slice(self, bound[1].IsUndefined() ? none : bound[1],
               bound[2].IsUndefined() ? none : bound[2], none, budget);
}

template <bool kEnd>
absl::StatusOr<Value> HasAffix(const Value& self, const Args& args, Budget* budget) {
  const char* const name = kEnd ? "endswith" : "startswith";
  ASSIGN_OR_RETURN(const auto bound, BindArgs(name, args, {"affix", "start", "end"}, 1));
  ASSIGN_OR_RETURN(const Value part, Within(self, bound, budget));
  std::vector<Value> choices = {bound[0]};
  if (const List* list = bound[0].list(); list != nullptr && list->kind == List::Kind::kTuple) {
    choices = list->items;
  }
  bool found = false;
  for (const Value& choice : choices) {
    ASSIGN_OR_RETURN(const std::string affix, TextArgument(name, choice));
    found |= kEnd ? part.str().ends_with(affix) : part.str().starts_with(affix);
  }
  return Value(found);
}

template <bool kFromRight, bool kMustExist>
absl::StatusOr<Value> Find(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("find", args, {"sub", "start", "end"}, 1));
  ASSIGN_OR_RETURN(const std::string needle, TextArgument("find", bound[0]));
  ASSIGN_OR_RETURN(const Value part, Within(self, bound, budget));
  budget->Work(std::ssize(self.str()));
  const size_t at = kFromRight ? part.str().rfind(needle) : part.str().find(needle);
  if (at == std::string::npos) {
    if (kMustExist) return Fail("index(): the text is not found");
    return Value(int64_t{-1});
  }
  int64_t start = 0;
  if (!bound[1].IsUndefined() && !bound[1].IsNone()) {
    ASSIGN_OR_RETURN(start, ToInt(bound[1], "start"));
    if (start < 0) start = std::max<int64_t>(0, start + self.text()->length);
  }
  return Value(start + CountCharacters(std::string_view(part.str()).substr(0, at)));
}

absl::StatusOr<Value> Count(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("count", args, {"sub", "start", "end"}, 1));
  ASSIGN_OR_RETURN(const std::string needle, TextArgument("count", bound[0]));
  ASSIGN_OR_RETURN(const Value part, Within(self, bound, budget));
  budget->Work(std::ssize(self.str()));
  if (needle.empty()) return Value(part.text()->length + 1);
  return Value(std::ssize(SplitOn(part.str(), needle, -1, false)) - 1);
}

absl::StatusOr<Value> Replace(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("replace", args, {"old", "new", "count"}, 2));
  ASSIGN_OR_RETURN(const std::string old_text, TextArgument("replace", bound[0]));
  ASSIGN_OR_RETURN(const std::string new_text, TextArgument("replace", bound[1]));
  int64_t left = -1;
  if (!bound[2].IsUndefined() && !bound[2].IsNone()) {
    ASSIGN_OR_RETURN(left, ToInt(bound[2], "count"));
  }
  const std::string& text = self.str();
  budget->Work(std::ssize(text));
  std::string out;
  size_t pos = 0;
  for (; left != 0; --left) {
    // An empty text is found before every character, and at the end.
    size_t at = old_text.empty() ? pos : text.find(old_text, pos);
    if (at == text.npos) break;
    out.append(text, pos, at - pos);
    out += new_text;
    RETURN_IF_ERROR(budget->CheckRoom(std::ssize(out)));
    pos = at + old_text.size();
    if (!old_text.empty()) continue;
    if (pos >= text.size()) break;
    const size_t bytes = unicode::CharLength(text[pos]);
    out.append(text, pos, bytes);
    pos += bytes;
  }
  out.append(text, std::min(pos, text.size()));
  return Value::MakeText(std::move(out), budget);
}

absl::StatusOr<Value> JoinMethod(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("join", args, {"iterable"}, 1));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(bound[0], budget));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const std::string item, TextArgument("join", items[i]));
    if (i > 0) out += self.str();
    out += item;
    RETURN_IF_ERROR(budget->CheckRoom(std::ssize(out)));
  }
  return Value::MakeText(std::move(out), budget);
}

enum class Side { kLeft, kRight, kBoth, kZeros };
template <Side kSide>
absl::StatusOr<Value> Pad(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("the method", args, {"width", "fillchar"}, 1));
  ASSIGN_OR_RETURN(const int64_t width, ToInt(bound[0], "width"));
  std::string fill = kSide == Side::kZeros ? "0" : " ";
  if (!bound[1].IsUndefined()) {
    ASSIGN_OR_RETURN(fill, TextArgument("the method", bound[1]));
    if (CountCharacters(fill) != 1) return Fail("the fill must be one character");
  }
  const int64_t missing = width - self.text()->length;
  if (missing <= 0) return self;
  RETURN_IF_ERROR(budget->CheckRoom(std::min<int64_t>(missing, INT32_MAX) * 4));
  // str.center puts the odd one on the left if the width is odd.
  int64_t left = kSide == Side::kLeft ? 0 : missing;
  if (kSide == Side::kBoth) left = missing / 2 + (missing & width & 1);
  std::string out = self.str();
  const size_t sign =
      kSide == Side::kZeros && (out.starts_with('-') || out.starts_with('+')) ? 1 : 0;
  std::string before;
  for (int64_t i = 0; i < left; ++i) before += fill;
  out.insert(sign, before);
  for (int64_t i = left; i < missing; ++i) out += fill;
  return Value::MakeText(std::move(out), budget);
}

template <bool kEnd>
absl::StatusOr<Value> RemoveAffix(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("removeprefix", args, {"affix"}, 1));
  ASSIGN_OR_RETURN(const std::string affix, TextArgument("removeprefix", bound[0]));
  std::string_view text = self.str();
  if (kEnd && text.ends_with(affix)) text.remove_suffix(affix.size());
  if (!kEnd && text.starts_with(affix)) text.remove_prefix(affix.size());
  return Made(text, budget);
}

absl::StatusOr<Value> FormatMethod(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(std::string text, BraceFormat(self.str(), args, budget));
  return Value::MakeText(std::move(text), budget);
}

absl::StatusOr<Value> Get(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs("get", args, {"key", "default"}, 1));
  const Value* const found = self.dict()->Find(bound[0]);
  if (found != nullptr) return *found;
  const bool has_default = args.positional.size() + args.named.size() > 1;
  return has_default ? bound[1] : Value::MakeNone();
}

enum class View { kKeys, kValues, kItems };
template <View kView>
absl::StatusOr<Value> MakeView(const Value& self, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("the method", args, {}, 0).status());
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict()->items) {
    if (kView == View::kKeys) items.push_back(key);
    if (kView == View::kValues) items.push_back(value);
    if (kView == View::kItems) items.push_back(MakeList(List::Kind::kTuple, {key, value}, budget));
  }
  auto view = std::make_shared<List>(List::Kind::kView, std::move(items), budget);
  view->label = kView == View::kKeys     ? "dict_keys"
                : kView == View::kValues ? "dict_values"
                                         : "dict_items";
  return Value(std::move(view));
}

absl::StatusOr<Value> Copy(const Value& self, const Args& args, Budget* budget) {
  RETURN_IF_ERROR(BindArgs("copy", args, {}, 0).status());
  return self;
}

template <bool kIndex>
absl::StatusOr<Value> Search(const Value& self, const Args& args, Budget* budget) {
  ASSIGN_OR_RETURN(const auto bound, BindArgs(kIndex ? "index" : "count", args, {"value"}, 1));
  const std::vector<Value>& items = self.list()->items;
  budget->Work(std::ssize(items) * 16);
  if (!kIndex) {
    return Value(int64_t{std::count_if(items.begin(), items.end(),
                                       [&](const Value& v) { return AreEqual(v, bound[0]); })});
  }
  for (size_t i = 0; i < items.size(); ++i) {
    if (AreEqual(items[i], bound[0])) return Value(static_cast<int64_t>(i));
  }
  return Fail("index(): the value is not in the list");
}

constexpr Named<Method> kTextMethods[] = {
    {"capitalize", Map<Capitalize>},
    {"casefold", Map<Lower>},
    {"center", Pad<Side::kBoth>},
    {"count", Count},
    {"endswith", HasAffix<true>},
    {"find", Find<false, false>},
    {"format", FormatMethod},
    {"index", Find<false, true>},
    {"isalnum", IsClass<CharClass::kAlnum>},
    {"isalpha", IsClass<CharClass::kAlpha>},
    {"isdecimal", IsClass<CharClass::kDecimal>},
    {"isdigit", IsClass<CharClass::kDigit>},
    {"islower", IsClass<CharClass::kLower>},
    {"isnumeric", IsClass<CharClass::kNumeric>},
    {"isspace", IsClass<CharClass::kSpace>},
    {"istitle", IsClass<CharClass::kTitle>},
    {"isupper", IsClass<CharClass::kUpper>},
    {"join", JoinMethod},
    {"ljust", Pad<Side::kLeft>},
    {"lower", Map<Lower>},
    {"lstrip", Strip<true, false>},
    {"partition", Partition<false>},
    {"removeprefix", RemoveAffix<false>},
    {"removesuffix", RemoveAffix<true>},
    {"replace", Replace},
    {"rfind", Find<true, false>},
    {"rindex", Find<true, true>},
    {"rjust", Pad<Side::kRight>},
    {"rpartition", Partition<true>},
    {"rsplit", Split<true>},
    {"rstrip", Strip<false, true>},
    {"split", Split<false>},
    {"splitlines", SplitLinesMethod},
    {"startswith", HasAffix<false>},
    {"strip", Strip<true, true>},
    {"swapcase", Map<SwapCase>},
    {"title", Map<TitleMethod>},
    {"upper", Map<Upper>},
    {"zfill", Pad<Side::kZeros>},
};
constexpr Named<Method> kDictMethods[] = {{"copy", Copy},
                                          {"get", Get},
                                          {"items", MakeView<View::kItems>},
                                          {"keys", MakeView<View::kKeys>},
                                          {"values", MakeView<View::kValues>}};
constexpr Named<Method> kListMethods[] = {
    {"copy", Copy}, {"count", Search<false>}, {"index", Search<true>}};

Method FindMethod(const Value& value, std::string_view name) {
  if (value.IsText()) return FindNamed(kTextMethods, name);
  if (value.dict() != nullptr) return FindNamed(kDictMethods, name);
  const List* const list = value.list();
  const bool sequence =
      list != nullptr && (list->kind == List::Kind::kList || list->kind == List::Kind::kTuple ||
                          list->kind == List::Kind::kRange);
  return sequence ? FindNamed(kListMethods, name) : nullptr;
}

}  // namespace

bool HasMethod(const Value& value, std::string_view name) {
  return FindMethod(value, name) != nullptr;
}

bool IsRefusedMethod(std::string_view name) {
  constexpr std::string_view kRefused[] = {
      "append", "clear",   "encode",       "expandtabs",  "extend",    "format_map", "fromkeys",
      "insert", "isascii", "isidentifier", "isprintable", "maketrans", "pop",        "popitem",
      "remove", "reverse", "setdefault",   "sort",        "translate", "update"};
  return std::find(std::begin(kRefused), std::end(kRefused), name) != std::end(kRefused);
}

absl::StatusOr<Value> CallMethod(const Value& value, std::string_view name, const Args& args,
                                 Budget* budget) {
  return FindMethod(value, name)(value, args, budget);
}

}  // namespace hgrn2::chat
