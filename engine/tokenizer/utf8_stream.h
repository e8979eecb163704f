// Bytes that arrive piecewise to text, whole characters at a time.
#pragma once

#include <string>
#include <string_view>

#include "engine/tokenizer/unicode.h"

namespace hgrn2 {

// Ill-formed bytes become U+FFFD, one per maximal subpart (Unicode 15, section 3.9), which is what
// Rust's from_utf8_lossy does.
class Utf8Stream {
 public:
  void Append(std::string_view bytes, std::string* out) {
    if (pending_.empty()) {
      const size_t rest = Convert(bytes, out);
      pending_.assign(bytes.substr(rest));
      return;
    }
    pending_ += bytes;
    pending_.erase(0, Convert(pending_, out));
  }
  // An incomplete character at the end is one U+FFFD.
  void Flush(std::string* out) {
    if (!pending_.empty()) *out += unicode::kReplacement;
    pending_.clear();
  }

 private:
  // Returns how many bytes were converted; the rest may be the start of a character.
  static size_t Convert(std::string_view bytes, std::string* out) {
    size_t pos = 0;
    while (pos < bytes.size()) {
      const size_t valid = unicode::ValidPrefix(bytes.substr(pos));
      out->append(bytes.substr(pos, valid));
      pos += valid;
      if (pos == bytes.size()) break;
      const unicode::Unit unit = unicode::FirstUnit(bytes.substr(pos));
      if (unit.size == 0) break;
      *out += unicode::kReplacement;
      pos += unit.size;
    }
    return pos;
  }

  std::string pending_;  // of an incomplete character
};

}  // namespace hgrn2
