// One client connection of HttpServer. Included by http_server.cc and http_connection.cc alone:
// Boost.Beast takes long to compile.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "server/http/http_server.h"

namespace hgrn2 {

class HttpConnection;

// What connections share with the server. They hold it, so it lives until the last has gone.
struct HttpShared {
  boost::asio::io_context context{1};
  HttpServerOptions options;
  HttpRouter router;
  std::set<HttpConnection*> connections;  // I/O thread only
  std::atomic<bool> stopping{false};      // nothing is posted any more
};

// Runs on the I/O thread, except where said. Keeps itself alive while an operation is under way or
// a responder is in a handler's hands.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(boost::asio::ip::tcp::socket socket, std::shared_ptr<HttpShared> shared);
  ~HttpConnection();

  void Read();
  // Fails whatever is under way.
  void Abort();
  // From any thread, once per request.
  void Answer(HttpResponse response);

 private:
  void OnRead(boost::beast::error_code error);
  void Dispatch();
  void Write(HttpResponse response);
  void OnWrite(boost::beast::error_code error);
  void Close();

  const std::shared_ptr<HttpShared> shared_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  boost::beast::http::response<boost::beast::http::string_body> response_;
  std::string path_;
  bool head_ = false;
  bool keep_alive_ = false;
};

}  // namespace hgrn2
