// Text from a file, made safe and short for an error message or a log line.
#pragma once

#include <string>
#include <string_view>

namespace hgrn2 {

// At most 120 bytes; control characters and bytes outside ASCII become '?'.
inline std::string Printable(std::string_view text) {
  constexpr size_t kMax = 120;
  std::string out(text.substr(0, kMax));
  for (char& c : out) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  if (text.size() > kMax) out += "...";
  return out;
}

}  // namespace hgrn2
