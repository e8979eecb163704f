#include "engine/chat/text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "engine/tokenizer/unicode.h"

namespace hgrn2::chat {
namespace {

template <typename Fn>
void ForEachChar(std::string_view text, Fn fn) {
  for (size_t pos = 0; pos < text.size();) fn(unicode::Next(text, &pos));
}

char32_t ToUpper(char32_t c) { return static_cast<char32_t>(utf8proc_toupper(c)); }
char32_t ToLower(char32_t c) { return static_cast<char32_t>(utf8proc_tolower(c)); }
char32_t ToTitle(char32_t c) { return static_cast<char32_t>(utf8proc_totitle(c)); }

// Case changes that lengthen the text: the sharp s is the one that ordinary text has.
void AppendUpper(char32_t c, std::string* out) {
  if (c == U'\u00df') {
    *out += "SS";
  } else {
    unicode::Append(ToUpper(c), out);
  }
}
void AppendTitle(char32_t c, std::string* out) {
  if (c == U'\u00df') {
    *out += "Ss";
  } else {
    unicode::Append(ToTitle(c), out);
  }
}

bool IsCased(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}
bool IsAlpha(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool IsDecimal(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND;
}
bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS;
}
bool Contains(std::string_view set, char32_t c) {
  for (size_t pos = 0; pos < set.size();) {
    if (unicode::Next(set, &pos) == c) return true;
  }
  return false;
}
bool IsLineEnd(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool Matches(CharClass char_class, char32_t c) {
  switch (char_class) {
    case CharClass::kAlpha:
      return IsAlpha(c);
    case CharClass::kDigit:
    case CharClass::kDecimal:
      return IsDecimal(c);
    case CharClass::kNumeric:
      return unicode::IsNumeric(c);
    case CharClass::kAlnum:
      return IsAlpha(c) || unicode::IsNumeric(c);
    case CharClass::kSpace:
      return IsSpace(c);
    default:
      return false;
  }
}

// islower and isupper: some cased character, and none of the other case. istitle: words.
bool IsCase(CharClass char_class, std::string_view text) {
  bool any = false;
  bool good = true;
  bool in_word = false;
  ForEachChar(text, [&](char32_t c) {
    const bool cased = IsCased(c);
    const bool upper = cased && ToLower(c) != c;
    any |= cased;
    if (char_class == CharClass::kLower) good &= !upper;
    if (char_class == CharClass::kUpper) good &= !cased || upper;
    if (char_class == CharClass::kTitle && cased) good &= upper != in_word;
    in_word = cased;
  });
  return any && good;
}

}  // namespace

int64_t CountCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
}

std::vector<size_t> CharacterOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t pos = 0; pos < text.size(); pos += unicode::CharLength(text[pos])) {
    offsets.push_back(pos);
  }
  offsets.push_back(text.size());
  return offsets;
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) ||
         (c > 0x7f && unicode::IsWhitespace(c));
}

std::string_view StripLeft(std::string_view text, std::string_view characters) {
  while (!text.empty()) {
    size_t pos = 0;
    const char32_t c = unicode::Next(text, &pos);
    if (characters.empty() ? !IsSpace(c) : !Contains(characters, c)) break;
    text.remove_prefix(pos);
  }
  return text;
}

std::string_view StripRight(std::string_view text, std::string_view characters) {
  while (!text.empty()) {
    const size_t start = unicode::Previous(text, text.size());
    size_t pos = start;
    const char32_t c = unicode::Next(text, &pos);
    if (characters.empty() ? !IsSpace(c) : !Contains(characters, c)) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string Upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  ForEachChar(text, [&](char32_t c) { AppendUpper(c, &out); });
  return out;
}

std::string Lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  ForEachChar(text, [&](char32_t c) { unicode::Append(ToLower(c), &out); });
  return out;
}

std::string Capitalize(std::string_view text) {
  std::string out;
  ForEachChar(text, [&, first = true](char32_t c) mutable {
    if (first) {
      AppendTitle(c, &out);
    } else {
      unicode::Append(ToLower(c), &out);
    }
    first = false;
  });
  return out;
}

std::string SwapCase(std::string_view text) {
  std::string out;
  ForEachChar(text, [&](char32_t c) {
    if (ToLower(c) != c) {
      unicode::Append(ToLower(c), &out);
    } else {
      AppendUpper(c, &out);
    }
  });
  return out;
}

std::string TitleMethod(std::string_view text) {
  std::string out;
  ForEachChar(text, [&, in_word = false](char32_t c) mutable {
    if (in_word) {
      unicode::Append(ToLower(c), &out);
    } else {
      AppendTitle(c, &out);
    }
    in_word = IsCased(c);
  });
  return out;
}

std::string TitleFilter(std::string_view text) {
  std::string out;
  ForEachChar(text, [&, first = true](char32_t c) mutable {
    const bool separator =
        IsSpace(c) || (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) !=
                                       std::string_view::npos);
    if (first) {
      AppendUpper(c, &out);
    } else {
      unicode::Append(ToLower(c), &out);
    }
    first = separator;
  });
  return out;
}

bool Is(CharClass char_class, std::string_view text) {
  if (char_class >= CharClass::kLower) return IsCase(char_class, text);
  bool all = !text.empty();
  ForEachChar(text, [&](char32_t c) { all = all && Matches(char_class, c); });
  return all;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t at = pos;
    const char32_t c = unicode::Next(text, &pos);
    if (!IsLineEnd(c)) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    lines.push_back(text.substr(start, (keep_ends ? pos : at) - start));
    start = pos;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string Repr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  ForEachChar(text, [&](char32_t c) {
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (IsPrintable(c)) {
      unicode::Append(c, &out);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  });
  out += quote;
  return out;
}

std::string FloatToString(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string out = fmt::format("{}", value);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

std::string JsonString(std::string_view text, bool ensure_ascii) {
  std::string out = "\"";
  ForEachChar(text, [&](char32_t c) {
    constexpr std::string_view kPlain = "\"\\\n\r\t\f\b";
    constexpr std::string_view kLetter = "\"\\nrtfb";
    const size_t at = c < 0x80 ? kPlain.find(static_cast<char>(c)) : kPlain.npos;
    if (at != kPlain.npos) {
      out += '\\';
      out += kLetter[at];
    } else if (c < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else if (c < 0x80 || !ensure_ascii) {
      unicode::Append(c, &out);
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      const auto rest = static_cast<uint32_t>(c) - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
    }
  });
  out += '"';
  return out;
}

}  // namespace hgrn2::chat
