// One HTTP/1.1 connection, plain or TLS, that carries one exchange at a time and is kept between
// them. Used on its transport's polling thread only.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/load/http_answer_parser.h"

namespace hgrn2::client {

// Where connections of one target go.
struct HttpEndpoint {
  std::vector<boost::asio::ip::tcp::endpoint> addresses;
  boost::asio::ssl::context* tls = nullptr;  // null: plain
  std::string host;                          // for SNI, and expected in the certificate
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // What happens during one exchange. A connection that reports a failure is closed.
  class Exchange {
   public:
    virtual bool OnSent() = 0;                        // false: stop
    virtual bool OnEvent(std::string_view data) = 0;  // of an event stream; false: stop
    virtual void OnAnswered(const HttpAnswerParser& answer, HttpConnection* connection) = 0;
    // The connection failed. `unanswered`: on a kept connection, before a byte of the answer came.
    virtual void OnFailed(const std::string& error, bool unanswered) = 0;
    virtual void OnStopped() = 0;  // as asked; the connection is closed

   protected:
    ~Exchange() = default;
  };

  HttpConnection(boost::asio::io_context* io, const HttpEndpoint* endpoint);

  // Opens ahead of need. `done` gets an empty text or the error.
  void Open(std::function<void(const std::string& error)> done);
  // Sends a whole request, opening the connection first if need be. REQUIRES: no exchange is going
  // on. `exchange` gets no more calls after one of OnAnswered, OnFailed, OnStopped.
  void Send(std::string request, Exchange* exchange);
  // Closes the connection and forgets the exchange, which is told nothing.
  void Close();
  bool is_open() const { return state_ == State::kOpen; }

 private:
  enum class State { kNew, kOpening, kOpen, kClosed };

  void Connect(size_t address);
  void OnConnected(const boost::system::error_code& error, size_t address);
  void OnOpen(const boost::system::error_code& error);
  void Write();
  void Read();
  void OnRead(const boost::system::error_code& error, size_t bytes);
  void OnState(HttpAnswerParser::State state);
  void Fail(const std::string& error);

  const HttpEndpoint* const endpoint_;
  boost::asio::ip::tcp::socket socket_;
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> tls_;
  State state_ = State::kNew;
  std::function<void(const std::string& error)> opened_;
  Exchange* exchange_ = nullptr;
  bool kept_ = false;  // was open without an exchange: the server may have closed it unseen
  bool written_ = false;
  std::string request_;
  HttpAnswerParser answer_;
  std::array<char, 8192> buffer_;
};

}  // namespace hgrn2::client
