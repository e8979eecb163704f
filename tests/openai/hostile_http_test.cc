// What no decent client sends, to the real server binary: each gets its answer, none takes anything
// from the others, and no connection is left behind.
#include <nlohmann/json.hpp>
#include <random>

#include "tests/server/integration_fixture.h"

namespace hgrn2 {
namespace {

using namespace hgrn2::testing;  // NOLINT: the fixture's helpers
using nlohmann::json;

class HostileHttpTest : public IntegrationTest {
 protected:
  int port() const { return server_->http_port(); }
  // The status of the first answer; 0: none.
  int Status(const std::string& bytes) {
    RawClient client(port());
    client.Send(bytes);
    client.EndSending();
    return client.Read().status;
  }
  int PostStatus(const std::string& body, const std::string& path = "/v1/completions") {
    return HttpPost(port(), path, body).status;
  }
  // The server works as ever, and holds nothing of what the test did.
  void ExpectUnharmed() {
    EXPECT_EQ(PostStatus(R"({"prompt":"The whale","max_tokens":2})"), 200);
    EXPECT_TRUE(Eventually([&] { return Metric("hgrn2_http_connections") == 1; }))
        << Metric("hgrn2_http_connections");
    EXPECT_TRUE(Eventually([&] { return SlotsUsed() == 0; }));
  }
};

TEST_F(HostileHttpTest, BadFraming) {
  Start();
  const std::string post = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n";
  const std::vector<std::pair<std::string, int>> cases = {
      {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400},
      {"GET /version\r\n\r\n", 400},
      {"GET /version HTTP/1.1\n\n", 400},
      {"GET /version HTTP/3.0\r\n\r\n", 505},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"GET /version HTTP/1.1\r\n\r\n", 400},
      {"GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET /version HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n", 400},
      {std::string("GET /version HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 42), 400},
      {"GET /ver\x7fsion HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET http://host/nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404},
      {post + "Content-Length: -1\r\n\r\n", 400},
      {post + "Content-Length: 1e3\r\n\r\n", 400},
      {post + "Content-Length: 99999999999\r\n\r\n", 413},
      {post + "Content-Length: 18446744073709551616\r\n\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 413},
      {post + "Transfer-Encoding: gzip\r\n\r\n", 501},
      {post + "Expect: the unexpected\r\nContent-Length: 1\r\n\r\nx", 417},
      {"BREW /version HTTP/1.1\r\nHost: x\r\n\r\n", 405},
      {"GET /" + std::string(20000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
      {"GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(20000, 'a') + "\r\n\r\n", 431},
      {std::string(100000, 'A'), 431},
      {"GET /%ff%fe\xff HTTP/1.1\r\nHost: x\r\n\r\n", 404},
  };
  for (const auto& [bytes, status] : cases) EXPECT_EQ(Status(bytes), status) << bytes.substr(0, 80);
  ExpectUnharmed();
}

// Behind a proxy that reads these differently the second request would be somebody else's.
TEST_F(HostileHttpTest, SmuggledRequestsAreNotAnswered) {
  Start();
  const std::string smuggled = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string post = "POST /detokenize HTTP/1.1\r\nHost: x\r\n";
  for (const std::string& headers :
       {std::string("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
        std::string("Content-Length: 0\r\nContent-Length: 40\r\n"),
        std::string("Content-Length: 0, 40\r\n"), std::string("Transfer-Encoding: xchunked\r\n"),
        std::string("Transfer-Encoding : chunked\r\n"),
        std::string("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        std::string("X: y\r\n Transfer-Encoding: chunked\r\n"),
        std::string("X: y\rTransfer-Encoding: chunked\r\n")}) {
    RawClient client(port());
    client.Send(post + headers + "\r\n0\r\n\r\n" + smuggled);
    client.EndSending();
    const std::string all = client.ReadToEnd();
    EXPECT_EQ(all.find("\"version\""), std::string::npos) << headers;
    EXPECT_EQ(all.find("HTTP/1.1 "), all.rfind("HTTP/1.1 ")) << "two answers to " << headers;
    EXPECT_TRUE(all.starts_with("HTTP/1.1 400") || all.starts_with("HTTP/1.1 501")) << all;
  }
  ExpectUnharmed();
}

TEST_F(HostileHttpTest, BadBodies) {
  Start();
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  for (const std::string& body : {
           std::string("{"),
           std::string("[]"),
           std::string("\"x\""),
           std::string("{}"),
           "{\"prompt\":" + deep + "}",
           "{\"prompt\":\"x\",\"messages\":" + deep + "}",
           std::string("{\"prompt\":\"\xff\xfe\"}"),
           std::string("{\"prompt\":\"\\ud800\"}"),
           std::string("{\"prompt\":\"x\",\"temperature\":NaN}"),
           std::string("{\"prompt\":\"x\",\"temperature\":1e400}"),
           std::string("{\"prompt\":\"x\",\"temperature\":1e39}"),
           std::string("{\"prompt\":\"x\",\"temperature\":\"hot\"}"),
           std::string("{\"prompt\":\"x\",\"max_tokens\":2147483648}"),
           std::string("{\"prompt\":\"x\",\"max_tokens\":1.5}"),
           std::string("{\"prompt\":\"x\",\"max_tokens\":0}"),
           std::string("{\"prompt\":\"x\",\"seed\":1e30}"),
           std::string("{\"prompt\":\"x\",\"n\":-1}"),
           std::string("{\"prompt\":\"x\",\"n\":2,\"n\":1}"),
           std::string("{\"prompt\":[1,\"x\"]}"),
           std::string("{\"prompt\":[[1],[99999999]]}"),
           std::string("{\"prompt\":[1e99]}"),
           std::string("{\"prompt\":[]}"),
           std::string("{\"prompt\":{}}"),
           std::string("{\"prompt\":\"x\",\"stop\":[1]}"),
           std::string("{\"prompt\":\"x\",\"logit_bias\":{\"x\":1}}"),
           std::string("{\"prompt\":\"x\",\"logit_bias\":{\"1\":1,\"01\":2}}"),
           std::string("{\"prompt\":\"x\",\"user\":\"a\\nb\"}"),
           std::string("{\"prompt\":\"x\",\"stream_options\":{\"x\":1}}"),
       }) {
    const HttpReply reply = HttpPost(port(), "/v1/completions", body);
    EXPECT_EQ(reply.status, 400) << body.substr(0, 80);
    EXPECT_FALSE(json::parse(reply.body)["error"]["message"].get<std::string>().empty());
  }
  EXPECT_EQ(PostStatus(std::string((4 << 20) + 1, ' ')), 413);
  EXPECT_EQ(PostStatus("{\"prompt\":\"" + std::string(3 << 20, '\x01') + "\"}"), 400);
  ExpectUnharmed();
}

TEST_F(HostileHttpTest, SlowClientsAreCutOffAndOthersServed) {
  Start(
      {"--http-header-timeout", "0.5", "--http-body-timeout", "0.5", "--http-idle-timeout", "0.5"});
  std::vector<std::unique_ptr<RawClient>> heads, bodies, silent;
  for (int i = 0; i < 100; ++i) {
    heads.push_back(std::make_unique<RawClient>(port()));
    heads.back()->Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-");
    bodies.push_back(std::make_unique<RawClient>(port()));
    bodies.back()->Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{");
    silent.push_back(std::make_unique<RawClient>(port()));
  }
  EXPECT_EQ(PostStatus(R"({"prompt":"The whale","max_tokens":2})"), 200);
  for (auto& client : heads) {
    client->Send("a");  // a byte now and then does not help
    EXPECT_EQ(client->Read().status, 408);
  }
  for (auto& client : bodies) EXPECT_EQ(client->Read().status, 408);
  for (auto& client : silent) EXPECT_TRUE(client->AtEnd());
  // The first two kinds are still open on our side; the server lets go of them all the same.
  ExpectUnharmed();
}

TEST_F(HostileHttpTest, ConnectionsBeyondTheLimit) {
  Start({"--http-max-connections", "20"});
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    clients.back()->Send("GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(clients.back()->Read().status, 200);
  }
  RawClient beyond(port());
  EXPECT_TRUE(beyond.AtEnd());
  clients.clear();
  EXPECT_TRUE(Eventually([&] { return HttpGet(port(), "/version").status == 200; }));
  ExpectUnharmed();
}

// Valid requests with bytes changed, cut, repeated and put together at random; seeded.
TEST_F(HostileHttpTest, RandomlyDamagedRequests) {
  Start();
  std::mt19937 random(20240607);
  const std::string body = R"({"prompt":"a","max_tokens":1,"stop":["b"],"logit_bias":{"5":1}})";
  const std::string valid = fmt::format(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: {}\r\n\r\n{}",
      body.size(), body);
  const std::string chunked = fmt::format(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "{:x}\r\n{}\r\n0\r\n\r\n",
      16, R"({"prompt":"abc"})");
  int answers = 0;
  for (int i = 0; i < 400; ++i) {
    std::string bytes = random() % 2 == 0 ? valid : chunked;
    for (uint32_t n = random() % 6; n > 0; --n) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.erase(at, random() % 8);
          break;
        case 2:
          bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 40));
          break;
        default:
          bytes.insert(at, 1, "\r\n\0: ,{["[random() % 8]);
      }
      if (bytes.empty()) bytes = "x";
    }
    RawClient client(port());
    client.Send(bytes);
    client.EndSending();
    const int status = client.Read().status;
    EXPECT_TRUE(status == 0 || (status >= 200 && status < 506 && status != 500)) << bytes;
    answers += status != 0;
  }
  EXPECT_GT(answers, 200);
  ExpectUnharmed();
}

}  // namespace
}  // namespace hgrn2
