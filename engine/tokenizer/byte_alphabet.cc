#include "engine/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

struct Alphabet {
  std::array<std::string, 256> chars;
  std::array<int16_t, 0x144> bytes;  // the alphabet ends at U+0143

  Alphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
      const char32_t c = printable ? static_cast<char32_t>(b) : next++;
      unicode::Append(c, &chars[b]);
      bytes[c] = static_cast<int16_t>(b);
    }
  }
};

const Alphabet& Get() {
  static const Alphabet* const alphabet = new Alphabet;
  return *alphabet;
}

}  // namespace

std::string_view ByteToAlphabet(unsigned char byte) { return Get().chars[byte]; }

int AlphabetToByte(char32_t c) {
  const auto& bytes = Get().bytes;
  return c < bytes.size() ? bytes[c] : -1;
}

std::string BytesToAlphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) out += ByteToAlphabet(static_cast<unsigned char>(b));
  return out;
}

bool AlphabetToBytes(std::string_view text, std::string* out) {
  const size_t before = out->size();
  for (size_t pos = 0; pos < text.size();) {
    const int byte = AlphabetToByte(unicode::Next(text, &pos));
    if (byte < 0) {
      out->resize(before);
      return false;
    }
    out->push_back(static_cast<char>(byte));
  }
  return true;
}

}  // namespace hgrn2
