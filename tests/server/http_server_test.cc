#include "server/http/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
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
                 later_started_ = true;
               });
    router.Add("GET", "/stream", [](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
      HttpResponse head;
      head.content_type = "text/event-stream";
      head.body = "one ";
      responder->Begin(std::move(head));
      responder->Write("two ");
      responder->Write("");  // would end a chunked answer if it were sent
      responder->Write("three");
      responder->Finish();
      responder->Write("ignored");
    });
    router.Add("GET", "/cut", [](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
      HttpResponse head;
      head.body = "half";
      responder->Begin(std::move(head));
    });
    router.Add("GET", "/held",
               [this](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
                 responder->Listen(listener_);
                 MutexLock lock(&mu_);
                 held_ = std::move(responder);
               });
    router.Add("GET", "/early",
               [this](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
                 responder->Listen(listener_);
                 std::thread([&responder] {
                   HttpResponse head;
                   head.body = "one ";
                   responder->Begin(std::move(head));
                 }).join();
                 MutexLock lock(&mu_);
                 held_ = std::move(responder);
               });
    router.Add("GET", "/things/{name}", Immediately([](const HttpRequest& request) {
                 HttpResponse response;
                 response.body = PathTail("/things/{name}", request.path);
                 return response;
               }));
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

  struct CountingListener : HttpStreamListener {
    void OnWritten() override { ++written; }
    void OnPeerGone() override { ++gone; }
    std::atomic<int> written{0};
    std::atomic<int> gone{0};
  };
  static bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000 && !condition(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return condition();
  }

  std::shared_ptr<HttpResponder> WaitForHeld() {
    Eventually([this] {
      MutexLock lock(&mu_);
      return held_ != nullptr;
    });
    MutexLock lock(&mu_);
    return std::move(held_);
  }

  Mutex mu_;
  std::atomic<bool> later_started_{false};
  std::shared_ptr<CountingListener> listener_ = std::make_shared<CountingListener>();
  std::shared_ptr<HttpResponder> held_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<std::string, int>> answered_ ABSL_GUARDED_BY(mu_);
  std::thread later_;
  std::unique_ptr<HttpServer> server_;
};

// Another thread may have begun to answer before the handler returns. The listener hears of that
// piece too: a stream that waits for it would never go on.
TEST_F(HttpServerTest, HearsOfWhatWasWrittenBeforeTheHandlerReturned) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto responder = WaitForHeld();
  EXPECT_TRUE(Eventually([this] { return listener_->written == 1; }));
  responder->Write("two");
  responder->Finish();
  EXPECT_EQ(client.Read().body, "one two");
}

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

TEST_F(HttpServerTest, StreamedAnswers) {
  Start();
  RawClient client(server_->port());
  const std::string get = "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n";
  client.Send(get + get + "GET /stream HTTP/1.0\r\n\r\n");
  for (int i = 0; i < 2; ++i) {
    const HttpReply reply = client.Read();
    EXPECT_EQ(reply.headers.at("transfer-encoding"), "chunked");
    EXPECT_EQ(reply.body, "one two three");
    EXPECT_TRUE(client.whole());
  }
  const HttpReply old = client.Read();
  EXPECT_FALSE(old.headers.contains("transfer-encoding"));
  EXPECT_EQ(old.body, "one two three");
}

TEST_F(HttpServerTest, AStreamThatIsDroppedIsCutOff) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /cut HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadHead().status, 200);
  EXPECT_EQ(client.ReadChunk(), "half");
  EXPECT_EQ(client.ReadChunk(), "");
  EXPECT_FALSE(client.whole());
}

TEST_F(HttpServerTest, ListenersHearOfWritesAndOfTheEnd) {
  Start();
  auto client = std::make_unique<RawClient>(server_->port());
  client->Send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto held = WaitForHeld();
  ASSERT_NE(held, nullptr);
  held->Begin({});
  EXPECT_TRUE(Eventually([&] { return listener_->written == 1; }));
  held->Write("x");
  EXPECT_TRUE(Eventually([&] { return listener_->written == 2; }));
  EXPECT_EQ(server_->num_connections(), 1);
  EXPECT_EQ(listener_->gone, 0);
  client.reset();
  EXPECT_TRUE(Eventually([&] { return listener_->gone == 1; }));
  held->Write("into the void");
  held->Finish();
  EXPECT_TRUE(Eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(HttpServerTest, AClientThatTakesNothingIsLetGo) {
  Start(
      [](HttpServerOptions* options) { options->write_timeout = std::chrono::milliseconds(200); });
  RawClient client(server_->port());
  client.SetReceiveBuffer(4096);
  client.Send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto held = WaitForHeld();
  ASSERT_NE(held, nullptr);
  held->Begin({});
  held->Write(std::string(64 << 20, 'x'));
  EXPECT_TRUE(Eventually([&] { return listener_->gone == 1; }));
}

TEST_F(HttpServerTest, ContinueIsSaidBeforeTheBody) {
  Start();
  RawClient client(server_->port());
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: a\r\nExpect: 100-continue\r\n"
      "Content-Length: 5\r\n\r\n");
  EXPECT_EQ(client.ReadHead().status, 100);
  client.Send("hello");
  EXPECT_EQ(client.Read().body, "hello");
}

TEST_F(HttpServerTest, OptionsAndPathsWithATail) {
  Start();
  const HttpReply options = Request("OPTIONS /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.at("allow"), "POST, OPTIONS");
  EXPECT_FALSE(options.headers.contains("access-control-allow-origin")) << "CORS is off";
  EXPECT_EQ(Request("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").status, 204);
  EXPECT_EQ(Get("/things/a/b%20c%zz").body, "a/b c%zz");
  EXPECT_EQ(Get("/things/").status, 404);
  EXPECT_EQ(Get("/things/{name}").status, 200);
}

TEST_F(HttpServerTest, SeveralThreads) {
  Start([](HttpServerOptions* options) { options->num_threads = 3; });
  std::vector<std::thread> clients;
  std::atomic<int> good{0};
  for (int i = 0; i < 12; ++i) {
    clients.emplace_back([&] {
      for (int n = 0; n < 10; ++n) good += Get("/stream").body == "one two three";
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(good, 120);
  EXPECT_TRUE(Eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(HttpServerTest, ADrainWaitsForAnswers) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return later_started_.load(); }));
  EXPECT_TRUE(server_->Drain(std::chrono::seconds(10)));
  const HttpReply reply = client.Read();
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.headers.at("connection"), "close");
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
