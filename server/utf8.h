#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace hgrn2 {

// `text` cut to at most `limit` bytes between characters, with bytes that are not UTF-8 replaced by
// '?': protobuf strings and JSON must be UTF-8, and errors may quote anything.
std::string SafeUtf8(std::string_view text, size_t limit);

bool IsUtf8(std::string_view text);

// `text` as the value of a key=value log line: as it is if it is one plain word, else in quotes,
// cut to 300 bytes and without control characters, so that a client's text cannot look like our own
// fields.
std::string LogValue(std::string_view text);

}  // namespace hgrn2
