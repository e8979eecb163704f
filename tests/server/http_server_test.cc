#include "server/http/http_server.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "tests/server/http_client.h"

namespace hgrn2 {
namespace {

using nlohmann::json;
using testing::HttpReply;
using testing::RawClient;

class HttpServerTest : public ::testing::Test {
 protected:
  void Start(std::function<void(HttpServerOptions*)> adjust = nullptr) {
    HttpRouter router;
    router.Add("GET", "/hello", Immediately([](const HttpRequest& request) {
                 HttpResponse response;
                 response.body = json({{"query", request.query}}).dump();
                 return response;
               }));
    router.Add("POST", "/echo", Immediately([](const HttpRequest& request) {
                 HttpResponse response;
                 response.content_type = request.headers.at("content-type");
                 response.body = request.body;
                 return response;
               }));
    router.Add("GET", "/later",
               [this](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
                 later_ = std::thread([responder = std::move(responder)] {
                   std::this_thread::sleep_for(std::chrono::milliseconds(50));
                   HttpResponse response;
                   response.body = "{}";
                   responder->Send(std::move(response));
                   responder->Send({});  // ignored
                 });
               });
    router.Add("GET", "/dropped", [](const HttpRequest&, std::shared_ptr<HttpResponder>) {});
    HttpServerOptions options;
    options.host = "127.0.0.1";
    options.on_answered = [this](std::string_view path, int status) {
      MutexLock lock(&mu_);
      answered_.emplace_back(std::string(path), status);
    };
    if (adjust) adjust(&options);
    auto server = HttpServer::Start(options, std::move(router));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void TearDown() override {
    if (later_.joinable()) later_.join();
  }
  HttpReply Request(const std::string& text) {
    RawClient client(server_->port());
    client.Send(text);
    return client.Read();
  }
  HttpReply Get(const std::string& path) {
    return Request("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }

  Mutex mu_;
  std::vector<std::pair<std::string, int>> answered_ ABSL_GUARDED_BY(mu_);
  std::thread later_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, GetWithQuery) {
  Start();
  const HttpReply reply = Get("/hello?a=1&b=2");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(json::parse(reply.body)["query"], "a=1&b=2");
  EXPECT_EQ(reply.headers.at("content-type"), "application/json");
}

TEST_F(HttpServerTest, PostBody) {
  Start();
  const HttpReply reply = Request(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: "
      "5\r\n\r\nhello");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "hello");
  const HttpReply chunked = Request(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked"
      "\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
  EXPECT_EQ(chunked.body, "hello!");
}

TEST_F(HttpServerTest, KeepAliveAndPipelining) {
  Start();
  RawClient client(server_->port());
  const std::string get = "GET /hello?n HTTP/1.1\r\nHost: x\r\n\r\n";
  client.Send(get + get);
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_EQ(client.Read().status, 200);
  client.Send(get);
  EXPECT_EQ(client.Read().status, 200);
  client.Send("GET /hello HTTP/1.0\r\n\r\n");
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(HttpServerTest, HeadHasTheHeadersOfGetAndNoBody) {
  Start();
  RawClient client(server_->port());
  client.Send("HEAD /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string all = client.ReadToEnd();
  EXPECT_EQ(all.substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_NE(all.find("Content-Length: 12\r\n"), std::string::npos) << all;
  EXPECT_TRUE(all.ends_with("\r\n\r\n"));
}

TEST_F(HttpServerTest, UnknownPathsAndMethodsAnswerInOpenAisShape) {
  Start();
  const HttpReply missing = Get("/nowhere");
  EXPECT_EQ(missing.status, 404);
  const json error = json::parse(missing.body)["error"];
  EXPECT_TRUE(error["code"].is_null());
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_TRUE(error["param"].is_null());
  EXPECT_NE(error["message"].get<std::string>().find("/nowhere"), std::string::npos);
  const HttpReply wrong = Request("DELETE /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "GET, HEAD, OPTIONS");
  EXPECT_EQ(json::parse(wrong.body)["error"]["type"], "invalid_request_error");
  const HttpReply not_utf8 = Get("/\xff\xfe");
  EXPECT_EQ(not_utf8.status, 404);
  EXPECT_TRUE(json::parse(not_utf8.body).contains("error"));
}

TEST_F(HttpServerTest, AnswersFromOtherThreadsAndDroppedRequests) {
  Start();
  EXPECT_EQ(Get("/later").status, 200);
  EXPECT_EQ(Get("/dropped").status, 500);
}

TEST_F(HttpServerTest, LimitsOfHeaderAndBody) {
  Start([](HttpServerOptions* options) {
    options->max_header_bytes = 1024;
    options->max_body_bytes = 100;
  });
  EXPECT_EQ(
      Request("GET /hello HTTP/1.1\r\nHost: x\r\nA: " + std::string(4000, 'a') + "\r\n\r\n").status,
      431);
  EXPECT_EQ(Request("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n" +
                    std::string(101, 'a'))
                .status,
            413);
}

TEST_F(HttpServerTest, GarbageGets400) {
  Start();
  EXPECT_EQ(Request("\x16\x03\x01 not http\r\n\r\n").status, 400);
  EXPECT_EQ(Request("GET /hello HTTP/9.9\r\n\r\n").status, 505);
  EXPECT_EQ(Get("/hello").status, 200);
}

TEST_F(HttpServerTest, SlowAndIdleClientsAreDisconnected) {
  Start([](HttpServerOptions* options) {
    options->header_timeout = options->body_timeout = std::chrono::milliseconds(150);
    options->idle_timeout = std::chrono::milliseconds(150);
  });
  const std::string post = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: a\r\n";
  RawClient silent(server_->port()), slow_head(server_->port()), slow_body(server_->port()),
      slow_chunk(server_->port()), idle(server_->port());
  slow_head.Send("GET /hello HT");
  slow_body.Send(post + "Content-Length: 3\r\n\r\nab");
  slow_chunk.Send(post + "Transfer-Encoding: chunked\r\n\r\n3\r\na");
  idle.Send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(idle.Read().status, 200);
  EXPECT_TRUE(silent.AtEnd());
  EXPECT_TRUE(idle.AtEnd());
  for (RawClient* slow : {&slow_head, &slow_body, &slow_chunk}) {
    EXPECT_EQ(slow->Read().status, 408);
    EXPECT_TRUE(slow->AtEnd());
  }
}

TEST_F(HttpServerTest, ConnectionsBeyondTheLimitAreClosed) {
  Start([](HttpServerOptions* options) { options->max_connections = 2; });
  const std::string get = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
  RawClient first(server_->port()), second(server_->port());
  first.Send(get);
  EXPECT_EQ(first.Read().status, 200);
  second.Send(get);
  EXPECT_EQ(second.Read().status, 200);
  RawClient third(server_->port());
  EXPECT_TRUE(third.AtEnd());
}

TEST_F(HttpServerTest, APortInUseIsAnError) {
  Start();
  HttpServerOptions options;
  options.host = "127.0.0.1";
  options.port = server_->port();
  auto second = HttpServer::Start(options, HttpRouter());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(HttpServerTest, StopsWithOpenConnections) {
  Start();
  RawClient idle(server_->port());
  idle.Send("GET /hel");
  server_.reset();
  EXPECT_TRUE(idle.AtEnd());
}

TEST_F(HttpServerTest, AnswersAreReportedByRoutedPath) {
  Start();
  Get("/hello");
  Get("/nowhere/at/all");
  server_.reset();
  MutexLock lock(&mu_);
  const std::vector<std::pair<std::string, int>> expected = {{"/hello", 200}, {"other", 404}};
  EXPECT_EQ(answered_, expected);
}

}  // namespace
}  // namespace hgrn2
