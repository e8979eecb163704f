// A small asynchronous HTTP/1.1 server on one I/O thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/http/http_router.h"

namespace hgrn2 {

struct HttpServerOptions {
  std::string host = "0.0.0.0";
  int port = 0;  // 0: any free one
  int32_t max_connections = 1024;
  uint32_t max_header_bytes = 16 << 10;
  uint64_t max_body_bytes = 1 << 20;
  // For receiving a whole request (which bounds idle connections and slow senders alike) and for
  // the client to take an answer.
  std::chrono::milliseconds idle_timeout{60000};
  // After each answer, on the I/O thread; path is HttpRouter::PathLabel's.
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
};

}  // namespace hgrn2
