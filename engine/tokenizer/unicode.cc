#include "engine/tokenizer/unicode.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

namespace hgrn2::unicode {
namespace {

struct Range {
  uint32_t first, last;
};
struct Mapping {
  uint32_t from, to;
};
struct CategoryRange {
  uint32_t first, last;
  const char* category;
};
#include "engine/tokenizer/unicode_tables.inc"

template <size_t n>
bool Contains(const Range (&ranges)[n], char32_t c) {
  const Range* at = std::lower_bound(std::begin(ranges), std::end(ranges), c,
                                     [](const Range& r, char32_t v) { return r.last < v; });
  return at != std::end(ranges) && at->first <= c;
}

const CategoryRange* FindNewer(char32_t c) {
  const CategoryRange* at =
      std::lower_bound(std::begin(kNewer), std::end(kNewer), c,
                       [](const CategoryRange& r, char32_t v) { return r.last < v; });
  return at != std::end(kNewer) && at->first <= c ? at : nullptr;
}

// A character of Unicode <= 13 of this category and of three or four UTF-8 bytes.
struct Representative {
  const char* category;
  char32_t three, four;
};
constexpr Representative kRepresentatives[] = {
    {"Lu", 0x1E00, 0x10400}, {"Ll", 0x1E01, 0x10428}, {"Lo", 0x0E01, 0x10450},
    {"Lm", 0x1D2C, 0x16B40}, {"Mn", 0x1DC0, 0x101FD}, {"Mc", 0x0903, 0x11000},
    {"Nd", 0x0E50, 0x104A0}, {"Nl", 0x2160, 0x10140}, {"No", 0x2460, 0x10107},
    {"Po", 0x2016, 0x10100}, {"Sm", 0x2200, 0x1D6C1}, {"So", 0x2100, 0x1F300},
    {"Sk", 0x1FBD, 0x1F3FB}, {"Cf", 0x200B, 0x110BD}, {"Pd", 0x2010, 0x10EAD},
};

// The stand-in for `c` (see ReplaceWithStandIns), or 0 if it can stay.
char32_t StandIn(char32_t c) {
  // PCRE2 counts U+180E among the spaces of \s, Oniguruma does not.
  if (c == 0x180E) return 0x200B;
  const CategoryRange* range = FindNewer(c);
  if (range == nullptr) return 0;
  for (const Representative& r : kRepresentatives) {
    if (std::string_view(r.category) == range->category) return c < 0x10000 ? r.three : r.four;
  }
  return 0;
}

std::string ClassRange(uint32_t first, uint32_t last) {
  return fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", first, last);
}

bool IsContinuation(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

// Bounds of the second byte of a character with this first byte; {0, 0} if it cannot start one.
Range SecondByte(uint8_t lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {0x80, 0xBF};
  if (lead == 0xE0) return {0xA0, 0xBF};
  if (lead == 0xED) return {0x80, 0x9F};
  if (lead >= 0xE1 && lead <= 0xEF) return {0x80, 0xBF};
  if (lead == 0xF0) return {0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {0x80, 0xBF};
  if (lead == 0xF4) return {0x80, 0x8F};
  return {0, 0};
}

// Canonical order, then composition for the C forms, of one run without inert characters.
void NormalizeRun(std::u32string* run, bool compose, std::string* out) {
  static_assert(sizeof(char32_t) == sizeof(utf8proc_int32_t));
  std::u32string& chars = *run;
  for (size_t i = 0; i < chars.size();) {
    const auto combining = [&](size_t k) {
      return utf8proc_get_property(static_cast<utf8proc_int32_t>(chars[k]))->combining_class;
    };
    size_t end = i;
    while (end < chars.size() && combining(end) != 0) ++end;
    std::stable_sort(chars.begin() + i, chars.begin() + end, [](char32_t a, char32_t b) {
      return utf8proc_get_property(static_cast<utf8proc_int32_t>(a))->combining_class <
             utf8proc_get_property(static_cast<utf8proc_int32_t>(b))->combining_class;
    });
    i = end + 1;
  }
  size_t size = chars.size();
  if (compose && size != 0) {
    const utf8proc_ssize_t composed = utf8proc_normalize_utf32(
        reinterpret_cast<utf8proc_int32_t*>(chars.data()), static_cast<utf8proc_ssize_t>(size),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (composed >= 0) size = static_cast<size_t>(composed);
  }
  for (size_t i = 0; i < size; ++i) Append(chars[i], out);
  chars.clear();
}

void Decompose(char32_t c, int options, std::u32string* out) {
  utf8proc_int32_t buffer[32];
  int last_boundclass = 0;
  const utf8proc_ssize_t n =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer, 32,
                              static_cast<utf8proc_option_t>(options), &last_boundclass);
  if (n < 0 || n > 32) {
    out->push_back(c);
    return;
  }
  for (utf8proc_ssize_t i = 0; i < n; ++i) out->push_back(static_cast<char32_t>(buffer[i]));
}

}  // namespace

Unit FirstUnit(std::string_view bytes) {
  const auto lead = static_cast<uint8_t>(bytes[0]);
  if (lead < 0x80) return {1, true};
  const Range second = SecondByte(lead);
  if (second.last == 0) return {1, false};
  const size_t length = CharLength(bytes[0]);
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {0, false};
    const auto b = static_cast<uint8_t>(bytes[i]);
    const bool good = i == 1 ? b >= second.first && b <= second.last : IsContinuation(bytes[i]);
    if (!good) return {i, false};
  }
  return {length, true};
}

size_t ValidPrefix(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    if (static_cast<uint8_t>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const Unit unit = FirstUnit(text.substr(pos, 4));
    if (unit.size == 0 || !unit.valid) return pos;
    pos += unit.size;
  }
  return pos;
}

char32_t Next(std::string_view text, size_t* pos) {
  const auto lead = static_cast<uint8_t>(text[*pos]);
  if (lead < 0x80) {
    ++*pos;
    return lead;
  }
  const size_t length = CharLength(text[*pos]);
  char32_t c = lead & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) c = c << 6 | (static_cast<uint8_t>(text[*pos + i]) & 0x3F);
  *pos += length;
  return c;
}

void Append(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

bool IsSingleChar(std::string_view text) {
  return !text.empty() && CharLength(text[0]) == text.size();
}

bool IsWhitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
bool IsNumeric(char32_t c) { return Contains(kNumeric, c); }
bool IsPunctuation(char32_t c) { return Contains(kPunctuation, c); }
bool IsWord(char32_t c) { return Contains(kWord, c); }

std::string Normalize(std::string_view text, Form form) {
  const bool compose = form == Form::kNfc || form == Form::kNfkc;
  const bool compat = form == Form::kNfkc || form == Form::kNfkd;
  const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0);
  std::string out;
  out.reserve(text.size());
  std::u32string run;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = Next(text, &pos);
    // A character unknown to the package's Unicode version neither reorders nor composes there, so
    // it separates runs. ASCII is a starter that nothing composes *into* from the left.
    if (c >= 0x80 && (Contains(kNormalizerInert, c) || FindNewer(c) != nullptr)) {
      NormalizeRun(&run, compose, &out);
      Append(c, &out);
      continue;
    }
    if (c < 0x80) {
      NormalizeRun(&run, compose, &out);
      run.push_back(c);
      continue;
    }
    Decompose(c, options, &run);
  }
  NormalizeRun(&run, compose, &out);
  return out;
}

std::string Lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = Next(text, &pos);
    if (c < 0x80) {
      out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    } else if (c == 0x130) {  // the only character whose lower case is two characters
      out += "i\xCC\x87";
    } else {
      const Mapping* at =
          std::lower_bound(std::begin(kLowercaseExtra), std::end(kLowercaseExtra), c,
                           [](const Mapping& m, char32_t v) { return m.from < v; });
      const bool extra = at != std::end(kLowercaseExtra) && at->from == c;
      Append(extra ? at->to
                   : static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))),
             &out);
    }
  }
  return out;
}

bool ReplaceWithStandIns(std::string_view text, std::string* out) {
  const bool plain = std::none_of(text.begin(), text.end(),
                                  [](char c) { return static_cast<uint8_t>(c) >= 0xE0; });
  if (plain) return false;
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const char32_t c = Next(text, &pos);
    if (pos - start < 3) continue;
    const char32_t stand_in = StandIn(c);
    if (stand_in == 0) continue;
    if (!any) out->assign(text);
    any = true;
    std::string bytes;
    Append(stand_in, &bytes);
    out->replace(start, bytes.size(), bytes);
  }
  return any;
}

const std::string& OnigurumaWordClass() {
  static const std::string* const text = [] {
    auto* s = new std::string;
    for (const Range& r : kOnigurumaWord) *s += ClassRange(r.first, r.last);
    return s;
  }();
  return *text;
}

const std::string& OnigurumaNonWordClass() {
  static const std::string* const text = [] {
    auto* s = new std::string;
    uint32_t next = 0;
    for (const Range& r : kOnigurumaWord) {
      if (next < r.first) *s += ClassRange(next, r.first - 1);
      next = r.last + 1;
    }
    *s += ClassRange(next, 0x10FFFF);
    return s;
  }();
  return *text;
}

}  // namespace hgrn2::unicode
