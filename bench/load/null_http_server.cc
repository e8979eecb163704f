// The HTTP counterpart of null_server: /v1/completions answered at once with made-up tokens as
// server-sent events, so that what limits a load test is the load client.
//   null_http_server [--port=8000] [--interval-us=0]
// An event has one token, running usage and the shape of vLLM's; many of them share a packet,
// unless
// --interval-us asks for one at a time.
#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

namespace hgrn2 {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kMaxBatch = 64 << 10;

std::string Chunk(const std::string& data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

std::string Event(int token, bool last) {
  return Chunk(fmt::format(
      "data: {{\"id\":\"cmpl-0123456789abcdef\",\"object\":\"text_completion\",\"created\":"
      "1700000000,\"model\":\"null\",\"choices\":[{{\"index\":0,\"text\":\" x\",\"logprobs\":null,"
      "\"finish_reason\":{}}}],\"usage\":{{\"prompt_tokens\":32,\"total_tokens\":{},"
      "\"completion_tokens\":{}}}}}\n\n",
      last ? "\"length\"" : "null", 32 + token, token));
}

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, std::chrono::microseconds interval)
      : socket_(std::move(socket)), timer_(socket_.get_executor()), interval_(interval) {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
  }

  void Read() {
    socket_.async_read_some(asio::buffer(buffer_),
                            [self = shared_from_this()](const error_code& error, size_t bytes) {
                              if (error) return;
                              self->in_.append(self->buffer_, bytes);
                              if (!self->TakeRequest()) self->Read();
                            });
  }

 private:
  // Starts the answer if a whole request is there.
  bool TakeRequest() {
    const size_t head_end = in_.find("\r\n\r\n");
    if (head_end == std::string::npos) return false;
    const size_t length = NumberAfter("Content-Length: ", head_end);
    if (in_.size() < head_end + 4 + length) return false;
    left_ = static_cast<int>(NumberAfter("\"max_tokens\":", in_.size()));
    token_ = 0;
    next_ = std::chrono::steady_clock::now();
    if (in_.compare(0, 3, "GET") == 0) {
      const std::string body = R"({"data":[{"id":"null"}]})";
      out_ = fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
    } else {
      out_ =
          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
          "chunked\r\n\r\n";
    }
    in_.erase(0, head_end + 4 + length);
    Write();
    return true;
  }

  size_t NumberAfter(const char* name, size_t end) const {
    const size_t at = in_.find(name);
    return at < end
               ? std::strtoul(in_.c_str() + at + std::char_traits<char>::length(name), nullptr, 10)
               : 0;
  }

  void Write() {
    while (left_ > 0 && out_.size() < kMaxBatch) {
      --left_;
      out_ += Event(++token_, left_ == 0);
      if (left_ == 0) out_ += Chunk("data: [DONE]\n\n") + "0\r\n\r\n";
      if (interval_.count() > 0) break;
    }
    asio::async_write(socket_, asio::buffer(out_),
                      [self = shared_from_this()](const error_code& error, size_t) {
                        if (error) return;
                        self->out_.clear();
                        self->Continue();
                      });
  }

  void Continue() {
    if (left_ == 0) {
      if (!TakeRequest()) Read();
    } else if (interval_.count() == 0) {
      Write();
    } else {
      next_ += interval_;
      timer_.expires_at(next_);
      timer_.async_wait([self = shared_from_this()](const error_code& error) {
        if (!error) self->Write();
      });
    }
  }

  tcp::socket socket_;
  asio::steady_timer timer_;
  const std::chrono::microseconds interval_;
  char buffer_[16 << 10];
  std::string in_;
  std::string out_;
  int left_ = 0;
  int token_ = 0;
  std::chrono::steady_clock::time_point next_;
};

void Accept(tcp::acceptor* acceptor, std::chrono::microseconds interval) {
  acceptor->async_accept([=](const error_code& error, tcp::socket socket) {
    if (!error) std::make_shared<Connection>(std::move(socket), interval)->Read();
    Accept(acceptor, interval);
  });
}

}  // namespace
}  // namespace hgrn2

int main(int argc, char** argv) {
  int port = 8000;
  int interval_us = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::sscanf(argv[i], "--port=%d", &port) == 1) continue;
    if (std::sscanf(argv[i], "--interval-us=%d", &interval_us) == 1) continue;
    std::fprintf(stderr, "usage: null_http_server [--port=N] [--interval-us=N]\n");
    return 2;
  }
  boost::asio::io_context io(1);
  boost::asio::ip::tcp::acceptor acceptor(
      io, {boost::asio::ip::address_v4::loopback(), static_cast<uint16_t>(port)});
  hgrn2::Accept(&acceptor, std::chrono::microseconds(interval_us));
  std::printf("null_http_server on 127.0.0.1:%d\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  io.run();
  return 0;
}
