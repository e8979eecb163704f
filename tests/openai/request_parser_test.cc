#include "server/http/request_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace hgrn2 {
namespace {

using State = HttpRequestParser::State;

constexpr HttpParserLimits kLimits{1024, 100};

// Feeds `text` in pieces of `piece` bytes, as a connection would. Returns what is left over.
std::string Feed(HttpRequestParser* parser, const std::string& text, size_t piece) {
  std::string input;
  for (size_t i = 0; i < text.size(); i += piece) {
    input += text.substr(i, piece);
    input.erase(0, parser->Feed(input));
  }
  return input;
}

// The status of refusing `text`, whatever the pieces; 0: it is a whole request, -1: incomplete.
int Refusal(const std::string& text) {
  int status = -2;
  for (const size_t piece : {text.size(), size_t{1}, size_t{7}}) {
    HttpRequestParser parser(kLimits);
    Feed(&parser, text, piece);
    const int now = parser.state() == State::kFailed     ? parser.error_status()
                    : parser.state() == State::kComplete ? 0
                                                         : -1;
    EXPECT_TRUE(status == -2 || status == now) << "depends on the pieces: " << text;
    status = now;
    EXPECT_EQ(parser.error().empty(), now <= 0);
  }
  return status;
}

std::string Get(const std::string& headers) {
  return "GET / HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n";
}
std::string Post(const std::string& headers, const std::string& body) {
  return "POST / HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" + body;
}

TEST(HttpRequestParserTest, HeadAndBodyInAnyPieces) {
  const std::string text =
      "\r\nPOST /a/b?q=1&r HTTP/1.1\r\nHost: x\r\nX-Thing:  two words \t\r\nx-thing: more\r\n"
      "Content-Length: 5\r\n\r\nhelloGET";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    HttpRequestParser parser({});
    const std::string rest = Feed(&parser, text, piece);
    ASSERT_EQ(parser.state(), State::kComplete) << piece;
    const HttpRequest& request = parser.request();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/a/b");
    EXPECT_EQ(request.query, "q=1&r");
    EXPECT_EQ(request.Header("x-thing"), "two words, more");
    EXPECT_EQ(request.body, "hello");
    EXPECT_TRUE(request.keep_alive);
    EXPECT_EQ(rest, "GET");
  }
}

TEST(HttpRequestParserTest, ChunkedBodies) {
  const std::string text = Post("Transfer-Encoding: Chunked\r\n",
                                "5;name=value\r\nhello\r\n00A\r\n 0123\r\n567\r\n0\r\n"
                                "Trailer: thrown away\r\n\r\nnext");
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    HttpRequestParser parser(kLimits);
    EXPECT_EQ(Feed(&parser, text, piece), "next");
    ASSERT_EQ(parser.state(), State::kComplete) << parser.error();
    EXPECT_EQ(parser.request().body, "hello 0123\r\n567");
    EXPECT_FALSE(parser.request().headers.contains("trailer"));
  }
}

TEST(HttpRequestParserTest, KeepAliveByVersionAndHeader) {
  const auto keeps = [](const std::string& text) {
    HttpRequestParser parser(kLimits);
    parser.Feed(text);
    EXPECT_EQ(parser.state(), State::kComplete);
    return parser.request().keep_alive;
  };
  EXPECT_TRUE(keeps(Get("")));
  EXPECT_FALSE(keeps(Get("Connection: upgrade, Close\r\n")));
  EXPECT_FALSE(keeps("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

TEST(HttpRequestParserTest, Targets) {
  const auto path = [](const std::string& target) {
    HttpRequestParser parser(kLimits);
    parser.Feed("OPTIONS " + target + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return parser.state() == State::kComplete ? parser.request().path : std::string("refused");
  };
  EXPECT_EQ(path("/"), "/");
  EXPECT_EQ(path("*"), "*");
  EXPECT_EQ(path("http://host:1/a?b"), "/a");
  EXPECT_EQ(path("https://host"), "/");
  EXPECT_EQ(path("host:443"), "refused");
  EXPECT_EQ(path("/a b"), "refused");
  EXPECT_EQ(path(std::string("/a\x01")), "refused");
  EXPECT_EQ(Refusal("GET * HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
}

// Each is a request that two parsers may take for different ones.
TEST(HttpRequestParserTest, SmugglingIsRefused) {
  const std::string chunks = "0\r\n\r\n";
  const std::vector<std::string> requests = {
      Post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks),
      Post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunks),
      Post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
      Post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"),
      Post("Content-Length: 5, 5\r\n", "hello"),
      Post("Content-Length: +5\r\n", "hello"),
      Post("Content-Length: -5\r\n", "hello"),
      Post("Content-Length: 0x5\r\n", "hello"),
      Post("Content-Length: 5 5\r\n", "hello"),
      Post("Content-Length:\r\n", "hello"),
      Post("Content-Length: 99999999999999999999999\r\n", "hello"),
      Post("Content-Length : 5\r\n", "hello"),
      Post(" Content-Length: 5\r\n", "hello"),
      Post("A: b\r\n Content-Length: 5\r\n", "hello"),
      Post("A: b\r\n\tfolded\r\n", ""),
      Post("Content-Length: 5\nTransfer-Encoding: chunked\r\n", "hello"),
      Post("A: b\rContent-Length: 5\r\n", "hello"),
      Post(std::string("A: b\0c\r\n", 8), ""),
      Post("Content_Length\r\n", ""),
      Post(": empty\r\n", ""),
      Post("H\xc3\xa9"
           "ader: 1\r\n",
           ""),
      Get("Host: y\r\n"),
      "GET / HTTP/1.1\r\n\r\n",
      "GET /\r\n\r\n",
      "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
      "G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
      " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
      "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
  };
  for (const std::string& request : requests) EXPECT_EQ(Refusal(request), 400) << request;
  EXPECT_EQ(Refusal(Post("Transfer-Encoding: gzip, chunked\r\n", chunks)), 501);
  EXPECT_EQ(Refusal(Post("Transfer-Encoding: chunked, chunked\r\n", chunks)), 501);
  EXPECT_EQ(Refusal(Post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks)),
            501);
  EXPECT_EQ(Refusal(Post("Transfer-Encoding: identity\r\n", "")), 501);
}

TEST(HttpRequestParserTest, MalformedChunksAreRefused) {
  const auto body = [](const std::string& chunks) {
    return Refusal(Post("Transfer-Encoding: chunked\r\n", chunks));
  };
  EXPECT_EQ(body("5\r\nhello\r\n0\r\n\r\n"), 0);
  EXPECT_EQ(body("5\nhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body("5\rhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body("-5\r\nhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body("+5\r\nhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body("0x5\r\nhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body(" 5\r\nhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body("5 \r\nhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body("\r\nhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body("4\r\nhello\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(body("FFFFFFFFFFFFFFFFF\r\n"), 400);
  EXPECT_EQ(body("ffffffffffffffff\r\n"), 413);
  EXPECT_EQ(body("5;" + std::string(500, 'x') + "\r\n"), 400);
  EXPECT_EQ(body("5\r\nhello\r\n"), -1);
}

TEST(HttpRequestParserTest, Limits) {
  EXPECT_EQ(Refusal(Get("A: " + std::string(2000, 'a') + "\r\n")), 431);
  EXPECT_EQ(Refusal(std::string(2000, 'A')), 431);
  EXPECT_EQ(Refusal(Post("Content-Length: 100\r\n", std::string(100, 'a'))), 0);
  EXPECT_EQ(Refusal(Post("Content-Length: 101\r\n", "")), 413);
  EXPECT_EQ(Refusal(Post("Transfer-Encoding: chunked\r\n",
                         "60\r\n" + std::string(96, 'a') + "\r\n5\r\naaaaa\r\n0\r\n\r\n")),
            413);
  std::string trailers;
  for (int i = 0; i < 200; ++i) trailers += "Trailer: x\r\n";
  EXPECT_EQ(Refusal(Post("Transfer-Encoding: chunked\r\n", "0\r\n" + trailers + "\r\n")), 431);
}

TEST(HttpRequestParserTest, WhatIsNotHttpIsToldAtOnce) {
  EXPECT_EQ(Refusal("\x16\x03\x01\x02"), 400);           // TLS
  EXPECT_EQ(Refusal("GET / HTTP/1.1\nHost: x\n"), 400);  // no answer would ever come
  EXPECT_EQ(Refusal("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
  EXPECT_EQ(Refusal("GET / HTTP/2.0\r\n\r\n"), 505);
}

TEST(HttpRequestParserTest, Expectations) {
  HttpRequestParser parser(kLimits);
  parser.Feed(Post("Expect: 100-Continue\r\nContent-Length: 3\r\n", ""));
  EXPECT_EQ(parser.state(), State::kBody);
  EXPECT_TRUE(parser.expects_continue());
  EXPECT_EQ(Refusal(Post("Expect: miracles\r\nContent-Length: 0\r\n", "")), 417);
}

}  // namespace
}  // namespace hgrn2
