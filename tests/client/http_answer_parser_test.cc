#include "client/load/http_answer_parser.h"

#include <gtest/gtest.h>

#include <vector>

namespace hgrn2::client {
namespace {

using State = HttpAnswerParser::State;

struct Outcome {
  State state = State::kMore;
  int status = 0;
  bool keep_alive = false;
  std::string body;
  std::vector<std::string> events;

  bool operator==(const Outcome& o) const = default;
};

// `piece`: bytes per Feed.
Outcome Parse(const std::string& bytes, size_t piece, bool end = false) {
  HttpAnswerParser parser;
  Outcome out;
  const auto on_event = [&](std::string_view data) {
    out.events.emplace_back(data);
    return data != "stop";
  };
  for (size_t at = 0; at < bytes.size() && out.state == State::kMore; at += piece) {
    out.state = parser.Feed(std::string_view(bytes).substr(at, piece), on_event);
  }
  if (end && out.state == State::kMore) out.state = parser.FeedEnd(on_event);
  out.status = parser.status();
  out.keep_alive = parser.keep_alive();
  out.body = parser.body();
  return out;
}

// The same whatever the cuts.
Outcome ParseAllWays(const std::string& bytes, bool end = false) {
  const Outcome whole = Parse(bytes, bytes.size(), end);
  for (const size_t piece : {1, 2, 3, 7, 16}) {
    const Outcome cut = Parse(bytes, piece, end);
    EXPECT_EQ(cut.state, whole.state) << piece;
    EXPECT_EQ(cut.events, whole.events) << piece;
    EXPECT_EQ(cut.body, whole.body) << piece;
  }
  return whole;
}

constexpr char kStreamHead[] =
    "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING:  Chunked \r\nContent-Type: text/event-stream; "
    "x=y\r\n\r\n";

TEST(HttpAnswerParser, ChunkedEventsWhereverTheyAreCut) {
  const Outcome out = ParseAllWays(std::string(kStreamHead) +
                                   "10\r\ndata: {\"a\": 1}\n\n\r\n"
                                   "5;ext=1\r\ndata:\r\n"
                                   "A\r\n two\ndata:\r\n"
                                   "F\r\n  lines\r\n\r\nid:\r\n"
                                   "2\r\n\n\n\r\n"
                                   "0\r\nTrailer: x\r\n\r\n");
  EXPECT_EQ(out.state, State::kDone);
  EXPECT_TRUE(out.keep_alive);
  EXPECT_EQ(out.events, (std::vector<std::string>{"{\"a\": 1}", "two\n lines"}));
}

TEST(HttpAnswerParser, OtherFramings) {
  Outcome out = ParseAllWays(
      "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow");
  EXPECT_EQ(out.state, State::kDone);
  EXPECT_EQ(out.status, 429);
  EXPECT_EQ(out.body, "slow");
  EXPECT_FALSE(out.keep_alive);

  out =
      ParseAllWays("HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\ndata: y\n",
                   /*end=*/true);
  EXPECT_EQ(out.state, State::kDone);
  EXPECT_EQ(out.events, (std::vector<std::string>{"x", "y"}));

  out = ParseAllWays("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(out.state, State::kDone);
  EXPECT_EQ(out.status, 204);
}

TEST(HttpAnswerParser, StopsWhenAsked) {
  const Outcome out =
      ParseAllWays(std::string(kStreamHead) + "17\r\ndata: stop\n\ndata: no\n\n\r\n");
  EXPECT_EQ(out.state, State::kStopped);
  EXPECT_EQ(out.events, std::vector<std::string>{"stop"});
}

TEST(HttpAnswerParser, BrokenAnswersFail) {
  const std::string head = kStreamHead;
  for (const std::string& bytes : {
           std::string("SSH-2.0-OpenSSH\r\n\r\n"),
           std::string("HTTP/1.1 abc\r\n\r\n"),
           std::string("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
           std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
           std::string("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
           head + "zz\r\n",
           head + "-5\r\n",
           head + "3\r\nabcdef\r\n",
           head + std::string(5000, '1'),
           std::string("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc"),
           "HTTP/1.1 200 OK\r\nX: " + std::string(70'000, 'x') + "\r\n\r\n",
       }) {
    EXPECT_EQ(Parse(bytes, bytes.size()).state, State::kFailed) << bytes.substr(0, 80);
    EXPECT_EQ(Parse(bytes, 1).state == State::kMore, false) << bytes.substr(0, 80);
  }
  EXPECT_EQ(Parse(head + "5\r\nab", 100, /*end=*/true).state, State::kFailed);
}

TEST(HttpAnswerParser, IsUsedAgain) {
  HttpAnswerParser parser;
  const auto ignore = [](std::string_view) { return true; };
  for (int i = 0; i < 3; ++i) {
    parser.Reset();
    EXPECT_FALSE(parser.started());
    EXPECT_EQ(parser.Feed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ignore), State::kDone);
    EXPECT_EQ(parser.body(), "ok");
  }
}

}  // namespace
}  // namespace hgrn2::client
