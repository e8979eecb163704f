#include "server/log_record.h"

#include <fmt/format.h>

#include "server/utf8.h"

namespace hgrn2 {
namespace {

constexpr size_t kMaxValueBytes = 300;

std::string JsonString(std::string_view text) {
  std::string out = "\"";
  for (const char c : SafeUtf8(text, kMaxValueBytes)) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

LogRecord::LogRecord(std::string_view event)
    : json_(LogsJson()),
      line_(json_ ? fmt::format("\"message\":{}", JsonString(event)) : std::string(event)) {}

LogRecord& LogRecord::Add(std::string_view key, std::string_view value) {
  return AddFormatted(key, json_ ? JsonString(value) : LogValue(value));
}

LogRecord& LogRecord::AddMilliseconds(std::string_view key, double seconds) {
  return AddFormatted(key, fmt::format("{:.3f}", seconds * 1e3));
}

LogRecord& LogRecord::AddFormatted(std::string_view key, const std::string& value) {
  line_ += json_ ? fmt::format(",\"{}\":{}", key, value) : fmt::format(" {}={}", key, value);
  return *this;
}

}  // namespace hgrn2
