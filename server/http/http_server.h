// A small asynchronous HTTP/1.1 server: a few I/O threads, each with connections of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "server/http/http_router.h"

namespace hgrn2 {

struct HttpServerOptions {
  std::string host = "0.0.0.0";
  int port = 0;  // 0: any free one
  int32_t num_threads = 1;
  int32_t max_connections = 1024;
  uint32_t max_header_bytes = 16 << 10;
  uint64_t max_body_bytes = 1 << 20;
  // For a request's head to arrive whole, from its first byte or the beginning of the connection,
  // and for its body after that: slow senders get 408.
  std::chrono::milliseconds header_timeout{10000};
  std::chrono::milliseconds body_timeout{60000};
  // Between an answer and the next request on the connection.
  std::chrono::milliseconds idle_timeout{60000};
  // Without the client taking any byte of an answer that waits to be sent.
  std::chrono::milliseconds write_timeout{60000};
  // After each answer, on an I/O thread; path is HttpRouter::PathLabel's.
  std::function<void(std::string_view path, int status)> on_answered;
};

class HttpServer {
 public:
  // UNAVAILABLE: cannot listen.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options,
                                                           HttpRouter router);
  // Closes every connection. REQUIRES: no handler's responder is still in use.
  virtual ~HttpServer() = default;

  virtual int port() const = 0;
  // Open connections now. Thread-safe.
  virtual int64_t num_connections() const = 0;
  // Answers from now on end their connections, so that clients go elsewhere. Thread-safe.
  virtual void CloseAfterAnswers() = 0;
  // Takes no new connections and waits until every request that has arrived is answered and the
  // answer with the operating system. False if some are left after `timeout`.
  virtual bool Drain(Duration timeout) = 0;
};

}  // namespace hgrn2
