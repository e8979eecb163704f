// Process-wide logging over spdlog, text or one JSON object per line. Thread-safe.
//   LOG_INFO("model loaded: {} parameters", n);
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

#include "absl/status/status.h"

namespace hgrn2 {

// level: trace|debug|info|warning|error|off. format: text|json. Writes to stderr.
absl::Status InitLogging(std::string_view level, std::string_view format);

// Whether lines are JSON objects.
bool LogsJson();

// Logs what is formatted already. With LogsJson: members of the line's object, beside its time,
// level and thread.
void LogFormatted(spdlog::level::level_enum level, std::string_view text);

}  // namespace hgrn2

#define LOG_DEBUG(...) ::spdlog::debug(__VA_ARGS__)
#define LOG_INFO(...) ::spdlog::info(__VA_ARGS__)
#define LOG_WARNING(...) ::spdlog::warn(__VA_ARGS__)
#define LOG_ERROR(...) ::spdlog::error(__VA_ARGS__)
