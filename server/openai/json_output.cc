#include "server/openai/json_output.h"

#include <charconv>
#include <cmath>

#include "server/utf8.h"

namespace hgrn2 {
namespace {

constexpr float kNoLogprob = -9999.0f;

void AppendEscaped(char c, std::string* out) {
  static constexpr char kHex[] = "0123456789abcdef";
  switch (c) {
    case '"':
      out->append("\\\"");
      return;
    case '\\':
      out->append("\\\\");
      return;
    case '\n':
      out->append("\\n");
      return;
    case '\r':
      out->append("\\r");
      return;
    case '\t':
      out->append("\\t");
      return;
    default:
      out->append("\\u00");
      out->push_back(kHex[static_cast<unsigned char>(c) >> 4]);
      out->push_back(kHex[c & 15]);
  }
}

bool NeedsCare(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte >= 0x7f || c == '"' || c == '\\';
}

// Appends the character at the front of `text`, which needs care, and returns its length.
size_t AppendCharacter(std::string_view text, std::string* out) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) {
    AppendEscaped(text[0], out);
    return 1;
  }
  const size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (n > text.size() || !IsUtf8(text.substr(0, n))) {
    out->append("\xef\xbf\xbd");
    return 1;
  }
  out->append(text.substr(0, n));
  return n;
}

}  // namespace

void AppendJsonString(std::string_view text, std::string* out) {
  out->push_back('"');
  for (size_t i = 0; i < text.size();) {
    size_t plain = i;
    while (plain < text.size() && !NeedsCare(text[plain])) ++plain;
    out->append(text.substr(i, plain - i));
    i = plain;
    if (i < text.size()) i += AppendCharacter(text.substr(i), out);
  }
  out->push_back('"');
}

void AppendJsonInt(int64_t value, std::string* out) {
  char digits[24];
  out->append(digits, std::to_chars(digits, digits + sizeof(digits), value).ptr);
}

void AppendJsonLogprob(float value, std::string* out) {
  char digits[32];
  const float finite = std::isfinite(value) ? value : kNoLogprob;
  out->append(digits, std::to_chars(digits, digits + sizeof(digits), finite).ptr);
}

}  // namespace hgrn2
