// Python's str, on UTF-8: characters are code points. All texts are valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hgrn2::chat {

int64_t CountCharacters(std::string_view text);
// Byte offset of every character, and text.size() at the end.
std::vector<size_t> CharacterOffsets(std::string_view text);

bool IsSpace(char32_t c);  // str.isspace
// With an empty `characters`, white space; else any character of it.
std::string_view StripLeft(std::string_view text, std::string_view characters = {});
std::string_view StripRight(std::string_view text, std::string_view characters = {});

std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
std::string Capitalize(std::string_view text);
std::string SwapCase(std::string_view text);
std::string TitleMethod(std::string_view text);  // str.title: a letter after anything else
std::string TitleFilter(std::string_view text);  // Jinja's: after white space and brackets

// str.isalpha and the like; all false for "".
enum class CharClass { kAlpha, kDigit, kDecimal, kNumeric, kAlnum, kSpace, kLower, kUpper, kTitle };
bool Is(CharClass char_class, std::string_view text);

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends = false);

// repr(): 'text' with escapes. str() of a float.
std::string Repr(std::string_view text);
std::string FloatToString(double value);

// A JSON string literal as json.dumps writes it.
std::string JsonString(std::string_view text, bool ensure_ascii);

}  // namespace hgrn2::chat
