#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/log.h"

namespace hgrn2 {

// One event with named values, for machines as much as for people: "rpc method=Generate tokens=12"
// as text, members of the line's object in JSON:
// {..., "message": "rpc", "method": "Generate", "tokens": 12}.
class LogRecord {
 public:
  explicit LogRecord(std::string_view event);

  // Keys are ours: plain words. Values may be a client's: they are cut, and cannot look like
  // fields.
  LogRecord& Add(std::string_view key, std::string_view value);
  LogRecord& Add(std::string_view key, std::integral auto value) {
    return AddFormatted(key, std::to_string(value));
  }
  LogRecord& AddMilliseconds(std::string_view key, double seconds);

  void Write(spdlog::level::level_enum level) const { LogFormatted(level, line_); }

 private:
  LogRecord& AddFormatted(std::string_view key, const std::string& value);

  const bool json_;
  std::string line_;
};

}  // namespace hgrn2
