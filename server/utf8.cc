#include "server/utf8.h"

#include <algorithm>
#include <cctype>

namespace hgrn2 {
namespace {

// Length of the UTF-8 character at the start of `s`, 0 if there is none.
size_t Utf8Length(std::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || s.size() < n) return 0;
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and values above U+10FFFF.
  if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f) ||
      (lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) > 0x8f)) {
    return 0;
  }
  return n;
}

}  // namespace

std::string LogValue(std::string_view text) {
  const bool word =
      !text.empty() && text.size() <= 300 && std::all_of(text.begin(), text.end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) ||
               std::string_view("-_.:/@+").find(c) != std::string_view::npos;
      });
  if (word) return std::string(text);
  std::string out = "\"";
  for (const char c : SafeUtf8(text, 300)) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out + '"';
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t n = Utf8Length(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

std::string SafeUtf8(std::string_view text, size_t limit) {
  std::string out;
  while (!text.empty()) {
    const size_t n = Utf8Length(text);
    const std::string_view character = n == 0 ? std::string_view("?") : text.substr(0, n);
    if (out.size() + character.size() > limit) break;
    out += character;
    text.remove_prefix(n == 0 ? 1 : n);
  }
  return out;
}

}  // namespace hgrn2
