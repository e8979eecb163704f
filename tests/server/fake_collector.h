// An OpenTelemetry collector for tests: takes OTLP over HTTP on loopback, keeps what it got, and
// answers as it is told.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace hgrn2::testing {

class FakeCollector {
 public:
  using Json = nlohmann::json;

  FakeCollector() : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeCollector() {
    {
      MutexLock lock(&mu_);
      stopping_ = true;
      shutdown(listener_, SHUT_RDWR);
      if (connection_ >= 0) shutdown(connection_, SHUT_RDWR);
      changed_.NotifyAll();
    }
    thread_.join();
    close(listener_);
  }
  FakeCollector(const FakeCollector&) = delete;
  FakeCollector& operator=(const FakeCollector&) = delete;

  int port() const { return port_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

  // Of the requests from now on; 0: none, the connection stays open.
  void AnswerWith(int status) {
    MutexLock lock(&mu_);
    status_ = status;
    changed_.NotifyAll();
  }
  // The first lines and headers of the requests.
  std::vector<std::string> heads() {
    MutexLock lock(&mu_);
    return heads_;
  }
  // Every span of every request, once there are `count`; fewer after a while without.
  std::vector<Json> WaitForSpans(size_t count) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    MutexLock lock(&mu_);
    while (spans_.size() < count && std::chrono::steady_clock::now() < end) {
      changed_.WaitFor(&mu_, std::chrono::milliseconds(100));
    }
    return spans_;
  }

 private:
  void Serve() {
    while (true) {
      const int connection = accept(listener_, nullptr, nullptr);
      if (connection < 0) return;
      {
        MutexLock lock(&mu_);
        connection_ = connection;
      }
      const auto [head, body] = ReadRequest(connection);
      const std::string answer = Take(head, body);
      send(connection, answer.data(), answer.size(), MSG_NOSIGNAL);
      MutexLock lock(&mu_);
      close(connection);
      connection_ = -1;
      if (stopping_) return;
    }
  }
  static std::pair<std::string, std::string> ReadRequest(int connection) {
    std::string text;
    size_t head = std::string::npos;
    size_t length = 0;
    while (head == std::string::npos || text.size() < head + length) {
      char chunk[16384];
      const ssize_t n = recv(connection, chunk, sizeof(chunk), 0);
      if (n <= 0) return {};
      text.append(chunk, static_cast<size_t>(n));
      if (head != std::string::npos) continue;
      head = text.find("\r\n\r\n");
      if (head == std::string::npos) continue;
      head += 4;
      length = std::strtoull(text.c_str() + text.find("Content-Length: ") + 16, nullptr, 10);
    }
    return {text.substr(0, head), text.substr(head)};
  }
  // Keeps the request; the answer, when it is to be given.
  std::string Take(const std::string& head, const std::string& body) {
    MutexLock lock(&mu_);
    if (!body.empty()) {
      heads_.push_back(head);
      const Json request = Json::parse(body);
      for (const Json& resource : request.at("resourceSpans")) {
        for (const Json& scope : resource.at("scopeSpans")) {
          for (const Json& span : scope.at("spans")) spans_.push_back(span);
        }
      }
      changed_.NotifyAll();
    }
    while (status_ == 0 && !stopping_) changed_.WaitFor(&mu_, std::chrono::milliseconds(50));
    return "HTTP/1.1 " + std::to_string(status_) +
           " Whatever\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
           "Connection: close\r\n\r\n{}";
  }

  const int listener_;
  int port_ = 0;
  Mutex mu_;
  CondVar changed_;
  int status_ ABSL_GUARDED_BY(mu_) = 200;
  int connection_ ABSL_GUARDED_BY(mu_) = -1;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::string> heads_ ABSL_GUARDED_BY(mu_);
  std::vector<Json> spans_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

// {key: value} of a span's attributes; numbers as the strings that they are on the wire.
inline nlohmann::json AttributesOf(const nlohmann::json& span) {
  nlohmann::json out = nlohmann::json::object();
  for (const auto& attribute : span.at("attributes")) {
    out[attribute.at("key").get<std::string>()] = attribute.at("value").begin().value();
  }
  return out;
}

}  // namespace hgrn2::testing
