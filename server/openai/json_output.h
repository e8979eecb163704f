// JSON written by hand into a buffer: what is said per token must cost next to nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hgrn2 {

// `text` in quotes, escaped; bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string_view text, std::string* out);
void AppendJsonInt(int64_t value, std::string* out);
// The shortest text that reads back as the same float. JSON has no infinities: a log-probability of
// -inf becomes -9999, as in vLLM.
void AppendJsonLogprob(float value, std::string* out);

}  // namespace hgrn2
