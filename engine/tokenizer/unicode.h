// UTF-8 and the character classes that the tokenizers package uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hgrn2::unicode {

// Length of the longest well-formed UTF-8 prefix of `text` (Unicode table 3-7: no surrogates, no
// overlong forms); text.size() if all of it is valid.
size_t ValidPrefix(std::string_view text);
inline bool IsValid(std::string_view text) { return ValidPrefix(text) == text.size(); }

// The code point at text[*pos], advancing *pos. REQUIRES: valid UTF-8, *pos < text.size().
char32_t Next(std::string_view text, size_t* pos);
void Append(char32_t c, std::string* out);
// Bytes of the character that starts with `lead`. REQUIRES: lead is the first byte of a character.
inline size_t CharLength(char lead) {
  const auto b = static_cast<uint8_t>(lead);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}
// Start of the character that ends just before `end`. REQUIRES: end > 0, valid UTF-8.
inline size_t Previous(std::string_view text, size_t end) {
  do --end;
  while ((static_cast<uint8_t>(text[end]) & 0xC0) == 0x80);
  return end;
}
bool IsSingleChar(std::string_view text);

// How many bytes at the start of `bytes` make one replacement: a character (valid = true), a
// maximal ill-formed subsequence (valid = false), or 0 if `bytes` is a proper prefix of a character
// that more bytes could complete.
struct Unit {
  size_t size;
  bool valid;
};
Unit FirstUnit(std::string_view bytes);
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

bool IsWhitespace(char32_t c);   // White_Space
bool IsNumeric(char32_t c);      // Nd, Nl, No
bool IsPunctuation(char32_t c);  // as the Punctuation pre-tokenizer
bool IsWord(char32_t c);         // \w of the Rust regex crate

enum class Form { kNfc, kNfd, kNfkc, kNfkd };
std::string Normalize(std::string_view text, Form form);
std::string Lowercase(std::string_view text);

// PCRE2's tables are of an older Unicode version than Oniguruma's, which the package uses. Before a
// text is matched, each character that the two put in different classes is replaced by one of equal
// UTF-8 length and of the right category, so that every match has the same offsets. Returns false,
// leaving *out alone, if `text` has no such character.
bool ReplaceWithStandIns(std::string_view text, std::string* out);

// \w of Oniguruma and its complement, as the inside of a PCRE2 class.
const std::string& OnigurumaWordClass();
const std::string& OnigurumaNonWordClass();

}  // namespace hgrn2::unicode
