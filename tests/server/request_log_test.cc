// Trace contexts, and what a request looks like in the log.
#include "server/request_log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/log.h"

namespace hgrn2 {
namespace {

constexpr const char kTraceId[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr const char kParentId[] = "00f067aa0ba902b7";

std::string Header(const std::string& version, const std::string& flags) {
  return version + "-" + kTraceId + "-" + kParentId + "-" + flags;
}

TEST(TraceContextTest, ReadsVersionZero) {
  const auto trace = ParseTraceparent(Header("00", "01"));
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace->trace_id, kTraceId);
  EXPECT_EQ(trace->parent_id, kParentId);
  EXPECT_TRUE(trace->sampled);
  EXPECT_FALSE(ParseTraceparent(Header("00", "02"))->sampled);
  EXPECT_TRUE(ParseTraceparent(Header("00", "ab"))->sampled);
}

TEST(TraceContextTest, LaterVersionsMayBeLonger) {
  EXPECT_TRUE(ParseTraceparent(Header("cc", "01")).has_value());
  EXPECT_TRUE(ParseTraceparent(Header("cc", "01") + "-what-comes").has_value());
  EXPECT_FALSE(ParseTraceparent(Header("cc", "01") + ".").has_value());
  EXPECT_FALSE(ParseTraceparent(Header("00", "01") + "-").has_value());
}

TEST(TraceContextTest, RefusesWhatIsNotOne) {
  const std::string valid = Header("00", "01");
  ASSERT_TRUE(ParseTraceparent(valid).has_value());
  EXPECT_FALSE(ParseTraceparent("").has_value());
  EXPECT_FALSE(ParseTraceparent(Header("ff", "01")).has_value());
  EXPECT_FALSE(
      ParseTraceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01").has_value());
  EXPECT_FALSE(
      ParseTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01").has_value());
  // Every character matters: a stranger in any place is refused, and so is every shorter text.
  for (size_t i = 0; i < valid.size(); ++i) {
    for (const char c : {'g', 'A', ' ', '\0', '\xff'}) {
      std::string bad = valid;
      bad[i] = c;
      EXPECT_FALSE(ParseTraceparent(bad).has_value()) << bad;
    }
    EXPECT_FALSE(ParseTraceparent(valid.substr(0, i)).has_value());
  }
}

// The line that `write` logs, without its head.
template <typename Write>
std::string Logged(const char* format, Write write) {
  testing::internal::CaptureStderr();
  EXPECT_TRUE(InitLogging("info", format).ok());
  write();
  spdlog::default_logger()->flush();
  return testing::internal::GetCapturedStderr();
}

void LogOne(const std::string& id, const std::string& user, const absl::Status& status) {
  const Usage usage{.prompt_tokens = 3, .completion_tokens = 4, .cached_tokens = 1};
  const Timing timing{.queue = 0.001, .prefill = 0.002, .decode = 0.0035};
  const TraceContext trace{kTraceId, kParentId, true};
  LogRecord record("rpc");
  record.Add("method", "Generate").Add("request_id", id);
  AddOutcome({status, usage, timing, 0.01, user, trace}, &record);
  record.Write(spdlog::level::info);
}

TEST(RequestLogTest, JsonLinesAreObjectsWithTheRequestsFields) {
  const std::string nasty = "a\",\"level\":\"error\nx\\ \xff \xc3\xa9";
  const std::string line = Logged("json", [&] {
    LogOne(nasty, nasty, absl::InternalError("broken \"thing\"\t"));
    LOG_INFO("an \"ordinary\" line");
  });
  const size_t end = line.find('\n');
  const auto object = nlohmann::json::parse(line.substr(0, end));
  EXPECT_EQ(object.at("level"), "info");
  EXPECT_EQ(object.at("message"), "rpc");
  EXPECT_EQ(object.at("method"), "Generate");
  EXPECT_EQ(object.at("request_id"), "a\",\"level\":\"error\nx\\ ? \xc3\xa9");
  EXPECT_EQ(object.at("user"), object.at("request_id"));
  EXPECT_EQ(object.at("trace_id"), kTraceId);
  EXPECT_EQ(object.at("parent_id"), kParentId);
  EXPECT_EQ(object.at("prompt_tokens"), 3);
  EXPECT_EQ(object.at("completion_tokens"), 4);
  EXPECT_EQ(object.at("cached_tokens"), 1);
  EXPECT_DOUBLE_EQ(object.at("decode_ms"), 3.5);
  EXPECT_EQ(object.at("error"), "broken \"thing\"\t");
  EXPECT_TRUE(object.contains("time"));
  EXPECT_EQ(nlohmann::json::parse(line.substr(end)).at("message"), "an \"ordinary\" line");
}

TEST(RequestLogTest, TextLinesArePairs) {
  const std::string line = Logged("text", [] { LogOne("id status=OK", "", absl::OkStatus()); });
  EXPECT_NE(line.find(" rpc method=Generate request_id=\"id status=OK\" prompt_tokens=3 "),
            std::string::npos)
      << line;
  EXPECT_NE(line.find("trace_id=4bf92f3577b34da6a3ce929d0e0e4736 parent_id=00f067aa0ba902b7"),
            std::string::npos)
      << line;
  EXPECT_EQ(line.find("user="), std::string::npos);
  EXPECT_EQ(line.find("error="), std::string::npos);
}

}  // namespace
}  // namespace hgrn2
