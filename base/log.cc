#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <memory>
#include <string>

#include "base/status.h"

namespace hgrn2 {
namespace {

// Its lines are members of a JSON object already.
constexpr const char kFormattedLogger[] = "hgrn2-formatted";

std::atomic<bool> logs_json{false};

void Append(std::string_view text, spdlog::memory_buf_t* dest) {
  dest->append(text.data(), text.data() + text.size());
}

// %* : the message as a member of a JSON object.
class JsonMessage : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& msg, const std::tm&,
              spdlog::memory_buf_t& dest) override {
    const std::string_view text(msg.payload.data(), msg.payload.size());
    if (std::string_view(msg.logger_name.data(), msg.logger_name.size()) == kFormattedLogger) {
      return Append(text, &dest);
    }
    Append("\"message\":\"", &dest);
    for (const char c : text) {
      const auto u = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') {
        dest.push_back('\\');
        dest.push_back(c);
      } else if (u < 0x20) {
        fmt::format_to(std::back_inserter(dest), "\\u{:04x}", u);
      } else {
        dest.push_back(c);
      }
    }
    dest.push_back('"');
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<JsonMessage>();
  }
};

}  // namespace

absl::Status InitLogging(std::string_view level, std::string_view format) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return InvalidArgument("log-level", "must be trace|debug|info|warning|error|off, got '{}'",
                           level);
  }
  const auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>("hgrn2", sink);
  if (format == "json") {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<JsonMessage>('*').set_pattern(
        R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","thread":%t,%*})");
    logger->set_formatter(std::move(formatter));
  } else if (format == "text") {
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %L %v");
  } else {
    return InvalidArgument("log-format", "must be text or json, got '{}'", format);
  }
  auto formatted = std::make_shared<spdlog::logger>(kFormattedLogger, sink);
  for (const auto& each : {logger, formatted}) {
    each->set_level(parsed);
    each->flush_on(spdlog::level::info);
  }
  spdlog::drop(kFormattedLogger);
  spdlog::register_logger(std::move(formatted));
  spdlog::set_default_logger(std::move(logger));
  logs_json = format == "json";
  return absl::OkStatus();
}

bool LogsJson() { return logs_json.load(std::memory_order_relaxed); }

void LogFormatted(spdlog::level::level_enum level, std::string_view text) {
  const auto logger = LogsJson() ? spdlog::get(kFormattedLogger) : spdlog::default_logger();
  if (logger != nullptr) logger->log(level, spdlog::string_view_t(text.data(), text.size()));
}

}  // namespace hgrn2
