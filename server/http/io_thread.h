// One I/O thread of HttpServer and what its connections share. Included by http_server.cc and
// http_connection.cc alone: Boost.Asio takes long to compile.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <thread>
#include <unordered_set>

#include "server/active_calls.h"
#include "server/http/http_server.h"

namespace hgrn2 {

class HttpConnection;

// What all connections of a server share. They hold it, so it lives until the last has gone.
struct HttpShared {
  HttpServerOptions options;
  HttpRouter router;
  std::atomic<int64_t> num_connections{0};
  ActiveCalls busy;  // requests that are not answered yet
  std::atomic<bool> close_after_answers{false};
  std::atomic<bool> stopping{false};  // nothing is posted any more
};

// Everything but Start, Stop and `context` is the thread's own.
class IoThread {
 public:
  explicit IoThread(std::shared_ptr<HttpShared> shared);

  void Start();
  // Closes every connection and ends the thread.
  void Stop();

  // Connections whose deadline has passed are closed by a sweep: a timer of its own for every
  // operation would cost more than the operation.
  void Sweep();

  const std::shared_ptr<HttpShared> shared;
  boost::asio::io_context context{1};
  std::unordered_set<std::shared_ptr<HttpConnection>> connections;
  bool stopped = false;
  // Where sockets are read into: an idle connection holds no buffer.
  std::array<char, 64 << 10> scratch;

 private:
  boost::asio::steady_timer sweep_timer_;
  const std::chrono::milliseconds sweep_interval_;
  std::thread thread_;
};

}  // namespace hgrn2
