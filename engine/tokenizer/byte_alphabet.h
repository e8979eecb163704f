// The byte-level alphabet of GPT-2: every byte as a printable character. Printable Latin-1 bytes
// stand for themselves, the other 68 are U+0100 and up, in order of the byte.
#pragma once

#include <string>
#include <string_view>

namespace hgrn2 {

// The UTF-8 form (one or two bytes) of the character that stands for `byte`.
std::string_view ByteToAlphabet(unsigned char byte);
// The byte that character `c` stands for, or -1.
int AlphabetToByte(char32_t c);

std::string BytesToAlphabet(std::string_view bytes);
// Appends the bytes of `text`; false (appending nothing) if a character is not of the alphabet.
bool AlphabetToBytes(std::string_view text, std::string* out);

}  // namespace hgrn2
