#include "client/load/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/write.hpp>
#include <utility>

namespace hgrn2::client {

namespace asio = boost::asio;
using boost::system::error_code;

HttpConnection::HttpConnection(asio::io_context* io, const HttpEndpoint* endpoint)
    : endpoint_(endpoint), socket_(*io) {}

void HttpConnection::Open(std::function<void(const std::string& error)> done) {
  opened_ = std::move(done);
  state_ = State::kOpening;
  Connect(0);
}

void HttpConnection::Connect(size_t address) {
  error_code ignored;
  socket_.close(ignored);
  socket_.async_connect(
      endpoint_->addresses[address],
      [self = shared_from_this(), address](const error_code& e) { self->OnConnected(e, address); });
}

void HttpConnection::OnConnected(const error_code& error, size_t address) {
  if (state_ == State::kClosed) return;
  if (error && address + 1 < endpoint_->addresses.size()) {
    Connect(address + 1);
    return;
  }
  if (error || endpoint_->tls == nullptr) {
    OnOpen(error);
    return;
  }
  tls_.emplace(socket_, *endpoint_->tls);
  SSL_set_tlsext_host_name(tls_->native_handle(), endpoint_->host.c_str());
  tls_->set_verify_callback(asio::ssl::host_name_verification(endpoint_->host));
  tls_->async_handshake(asio::ssl::stream_base::client,
                        [self = shared_from_this()](const error_code& e) { self->OnOpen(e); });
}

void HttpConnection::OnOpen(const error_code& error) {
  if (state_ == State::kClosed) return;
  if (error) {
    Fail("cannot connect: " + error.message());
    return;
  }
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  state_ = State::kOpen;
  Read();
  kept_ = opened_ != nullptr;
  if (opened_) std::exchange(opened_, nullptr)("");
  if (exchange_ != nullptr && !request_.empty()) Write();
}

void HttpConnection::Send(std::string request, Exchange* exchange) {
  request_ = std::move(request);
  exchange_ = exchange;
  written_ = false;
  answer_.Reset();
  if (state_ == State::kOpen) {
    Write();
  } else {
    Open(nullptr);
  }
}

void HttpConnection::Write() {
  auto done = [self = shared_from_this()](const error_code& error, size_t) {
    if (self->state_ == State::kClosed || error) return;  // the pending read tells of the error
    self->request_.clear();
    self->written_ = true;
    if (self->exchange_ != nullptr && !self->exchange_->OnSent()) {
      self->OnState(HttpAnswerParser::State::kStopped);
    }
  };
  if (tls_) {
    asio::async_write(*tls_, asio::buffer(request_), std::move(done));
  } else {
    asio::async_write(socket_, asio::buffer(request_), std::move(done));
  }
}

// Reads also between exchanges, so that a connection which the server closes is not used again.
void HttpConnection::Read() {
  auto done = [self = shared_from_this()](const error_code& error, size_t bytes) {
    self->OnRead(error, bytes);
  };
  if (tls_) {
    tls_->async_read_some(asio::buffer(buffer_), std::move(done));
  } else {
    socket_.async_read_some(asio::buffer(buffer_), std::move(done));
  }
}

void HttpConnection::OnRead(const error_code& error, size_t bytes) {
  if (state_ == State::kClosed) return;
  const auto on_event = [this](std::string_view data) { return exchange_->OnEvent(data); };
  if (exchange_ == nullptr) {  // closed by the server, or bytes that nobody asked for
    Close();
  } else if (!error) {
    OnState(answer_.Feed({buffer_.data(), bytes}, on_event));
    if (state_ == State::kOpen) Read();
  } else if (answer_.started() &&
             (error == asio::error::eof || error == asio::ssl::error::stream_truncated)) {
    OnState(answer_.FeedEnd(on_event));
  } else {
    Fail(error == asio::error::eof ? "the server closed the connection" : error.message());
  }
}

void HttpConnection::OnState(HttpAnswerParser::State state) {
  switch (state) {
    case HttpAnswerParser::State::kMore:
      return;
    case HttpAnswerParser::State::kFailed:
      Fail(answer_.error());
      return;
    case HttpAnswerParser::State::kStopped: {
      Exchange* const exchange = std::exchange(exchange_, nullptr);
      Close();
      exchange->OnStopped();
      return;
    }
    case HttpAnswerParser::State::kDone: {
      Exchange* const exchange = std::exchange(exchange_, nullptr);
      // An answer before the whole request was sent, such as a refusal of its size.
      if (!answer_.keep_alive() || !written_) Close();
      kept_ = true;
      exchange->OnAnswered(answer_, this);
      return;
    }
  }
}

void HttpConnection::Fail(const std::string& error) {
  const bool unanswered = kept_ && !answer_.started();
  Exchange* const exchange = std::exchange(exchange_, nullptr);
  auto opened = std::exchange(opened_, nullptr);
  Close();
  if (opened) opened(error);
  if (exchange != nullptr) exchange->OnFailed(error, unanswered);
}

void HttpConnection::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  exchange_ = nullptr;
  opened_ = nullptr;
  error_code ignored;
  socket_.close(ignored);
}

}  // namespace hgrn2::client
