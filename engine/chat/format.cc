#include "engine/chat/format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>

#include "base/status.h"
#include "engine/chat/environment.h"
#include "engine/chat/operators.h"
#include "engine/chat/text.h"

namespace hgrn2::chat {
namespace {

absl::Status Fail(std::string_view what) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "{}", what);
}

// One "%...": flags, width and precision as written.
struct Directive {
  std::string key;
  bool has_key = false;
  bool left = false;
  bool zero = false;
  bool plus = false;
  int width = 0;
  int precision = -1;
  char type = '\0';
};

// Digits at *pos; at most 9999.
absl::Status ParseCount(std::string_view format, size_t* pos, int* out) {
  const char* const first = format.data() + *pos;
  const auto result = std::from_chars(first, format.data() + format.size(), *out);
  if (result.ec == std::errc::invalid_argument) return absl::OkStatus();
  if (result.ec != std::errc() || *out > 9999) return Fail("a format's width is larger than 9999");
  *pos += result.ptr - first;
  return absl::OkStatus();
}

absl::StatusOr<Directive> ParseDirective(std::string_view format, size_t* pos) {
  Directive d;
  if (*pos < format.size() && format[*pos] == '(') {
    const size_t end = format.find(')', *pos);
    if (end == format.npos) return Fail("a format's key is not closed with )");
    d.has_key = true;
    d.key = format.substr(*pos + 1, end - *pos - 1);
    *pos = end + 1;
  }
  for (; *pos < format.size(); ++*pos) {
    const char c = format[*pos];
    if (c == '-') {
      d.left = true;
    } else if (c == '0') {
      d.zero = true;
    } else if (c == '+') {
      d.plus = true;
    } else {
      break;
    }
  }
  RETURN_IF_ERROR(ParseCount(format, pos, &d.width));
  if (*pos < format.size() && format[*pos] == '.') {
    ++*pos;
    d.precision = 0;
    RETURN_IF_ERROR(ParseCount(format, pos, &d.precision));
  }
  if (*pos >= format.size()) return Fail("a format ends within a directive");
  d.type = format[(*pos)++];
  if (static_cast<unsigned char>(d.type) >= 0x80) return Fail("a format's directive is not ASCII");
  return d;
}

absl::StatusOr<std::string> FormatOne(const Directive& d, const Value& value) {
  std::string text;
  bool numeric = true;
  if (d.type == 's' || d.type == 'r') {
    ASSIGN_OR_RETURN(text, d.type == 's' ? ToText(value) : ToRepr(value));
    if (d.precision >= 0) {
      const std::vector<size_t> at = CharacterOffsets(text);
      text.resize(at[std::min<size_t>(d.precision, at.size() - 1)]);
    }
    numeric = false;
  } else if (!value.IsNumber()) {
    RETURN_IF_ERROR(UseUndefined(value));
    return Fail(fmt::format("%{} needs a number, not '{}'", d.type, value.TypeName()));
  } else if (d.type == 'd' || d.type == 'i') {
    if (value.IsFloat() && !(std::abs(value.AsDouble()) < 9e18))
      return Fail("%d: the number is too large");
    const int64_t number = value.IsFloat() ? static_cast<int64_t>(value.AsDouble()) : value.AsInt();
    text = fmt::format("{}", number);
  } else if (d.type == 'f') {
    text = fmt::format("{:.{}f}", value.AsDouble(), d.precision < 0 ? 6 : d.precision);
  } else if (d.type == 'x' && value.IsIntegral()) {
    text = fmt::format("{:x}", value.AsInt());
  } else {
    return Fail(fmt::format("the format directive %{} is not supported", d.type));
  }
  if (numeric && d.plus && !text.starts_with('-')) text.insert(0, "+");
  const int64_t missing = d.width - CountCharacters(text);
  if (missing <= 0) return text;
  if (d.left) return text + std::string(missing, ' ');
  if (!d.zero || !numeric) return std::string(missing, ' ') + text;
  text.insert(text.starts_with('-') || text.starts_with('+') ? 1 : 0, missing, '0');
  return text;
}

// The value of a field: "", "0" or "name", and then ".a" or "[b]".
absl::StatusOr<Value> FindField(std::string_view field, const Args& args, size_t* automatic,
                                Budget* budget) {
  const size_t end = std::min(field.find_first_of(".["), field.size());
  const std::string_view first = field.substr(0, end);
  Value value;
  if (first.empty() ||
      std::all_of(first.begin(), first.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    size_t index = *automatic;
    if (first.empty()) {
      ++*automatic;
    } else if (first.size() > 6 ||
               std::from_chars(first.data(), first.data() + first.size(), index).ec !=
                   std::errc()) {
      return Fail("a format's index is too large");
    }
    if (index >= args.positional.size())
      return Fail(fmt::format("the format has no argument {}", index));
    value = args.positional[index];
  } else {
    const auto at = std::find_if(args.named.begin(), args.named.end(),
                                 [&](const auto& named) { return named.first == first; });
    if (at == args.named.end()) return Fail(fmt::format("the format has no argument '{}'", first));
    value = at->second;
  }
  if (end == field.size()) return value;
  if (field[end] != '.' || field.find_first_of(".[", end + 1) != field.npos) {
    return Fail("a format's field is not supported");
  }
  return GetAttribute(value, std::string(field.substr(end + 1)), budget);
}

}  // namespace

absl::StatusOr<std::string> PercentFormat(std::string_view format, const Value& arguments,
                                          Budget* budget) {
  const List* const list = arguments.list();
  const bool tuple = list != nullptr && list->kind == List::Kind::kTuple;
  std::vector<Value> positional = tuple ? list->items : std::vector<Value>{arguments};
  // What has items by key or index might be a mapping to Python, which need not be used up.
  const bool lookup =
      arguments.dict() != nullptr || arguments.IsUndefined() ||
      (list != nullptr && list->kind != List::Kind::kGenerator && list->kind != List::Kind::kView);
  const bool takes_all = tuple || !lookup;
  size_t used = 0;
  bool by_key = false;
  std::string out;
  for (size_t pos = 0; pos < format.size();) {
    const char c = format[pos++];
    if (c != '%') {
      out += c;
      continue;
    }
    ASSIGN_OR_RETURN(const Directive d, ParseDirective(format, &pos));
    if (d.type == '%') {
      out += '%';
      continue;
    }
    Value value;
    if (d.has_key) {
      by_key = true;
      if (arguments.dict() == nullptr) return Fail("a format with keys needs a dict");
      const Value* const found = arguments.dict()->Find(d.key);
      if (found == nullptr) return Fail(fmt::format("the format's key '{}' is missing", d.key));
      value = *found;
    } else {
      if (used >= positional.size()) return Fail("not enough arguments for the format");
      value = positional[used++];
    }
    ASSIGN_OR_RETURN(const std::string text, FormatOne(d, value));
    out += text;
    RETURN_IF_ERROR(budget->CheckRoom(std::ssize(out)));
  }
  if (!by_key && used < positional.size() && takes_all) {
    return Fail("not all arguments are used by the format");
  }
  return out;
}

absl::StatusOr<std::string> BraceFormat(std::string_view format, const Args& args, Budget* budget) {
  std::string out;
  size_t automatic = 0;
  for (size_t pos = 0; pos < format.size();) {
    const char c = format[pos++];
    const bool doubled = pos < format.size() && format[pos] == c;
    if ((c == '{' || c == '}') && doubled) {
      out += c;
      ++pos;
      continue;
    }
    if (c == '}') return Fail("a single '}' in a format");
    if (c != '{') {
      out += c;
      continue;
    }
    const size_t end = format.find('}', pos);
    if (end == format.npos) return Fail("a single '{' in a format");
    std::string_view field = format.substr(pos, end - pos);
    pos = end + 1;
    if (field.find_first_of(":{") != field.npos)
      return Fail("format specifications are not supported");
    const bool repr = field.ends_with("!r");
    if (repr || field.ends_with("!s")) field.remove_suffix(2);
    ASSIGN_OR_RETURN(const Value value, FindField(field, args, &automatic, budget));
    ASSIGN_OR_RETURN(const std::string text, repr ? ToRepr(value) : ToText(value));
    out += text;
    RETURN_IF_ERROR(budget->CheckRoom(std::ssize(out)));
  }
  return out;
}

absl::StatusOr<std::string> FormatTime(const std::string& format, int64_t seconds) {
  if (format.size() > 1000 || format.find('\0') != std::string::npos) {
    return Fail("strftime_now's format must be at most 1000 bytes without a zero byte");
  }
  const auto time = static_cast<time_t>(seconds);
  std::tm local{};
  if (localtime_r(&time, &local) == nullptr) return Fail("the clock is out of range");
  // Something always in front: strftime returns 0 for an empty text and for one that is too long.
  std::array<char, 16384> buffer;
  const size_t bytes = std::strftime(buffer.data(), buffer.size(), (" " + format).c_str(), &local);
  if (bytes == 0) return Fail("strftime_now's result is too long");
  return std::string(buffer.data() + 1, bytes - 1);
}

}  // namespace hgrn2::chat
