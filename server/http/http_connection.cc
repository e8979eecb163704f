#include "server/http/http_connection.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <ctime>

#include "server/version.h"

namespace hgrn2 {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

// After an answer that ends the connection, the client's unread bytes must be read: closing on them
// would reset the connection and could take the answer away before the client has seen it.
constexpr std::chrono::milliseconds kLingerTime{2000};
constexpr size_t kMaxLingerBytes = 16 << 20;

// RFC 9110's date format, which is independent of the locale.
std::string HttpDate() {
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t now = std::time(nullptr);
  std::tm t{};
  gmtime_r(&now, &t);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[t.tm_wday], t.tm_mday,
                     kMonths[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

// Turns calls from any thread into steps on the connection's thread.
class ConnectionResponder : public HttpResponder {
 public:
  explicit ConnectionResponder(std::shared_ptr<HttpConnection> connection)
      : connection_(std::move(connection)) {}
  ~ConnectionResponder() override {
    const State state = state_.load();
    if (state == State::kUnused) Send(ErrorResponse(500, "the request was dropped"));
    if (state == State::kStreaming) connection_->Post([](HttpConnection& c) { c.Close(); });
  }

  void Listen(std::shared_ptr<HttpStreamListener> listener) override {
    connection_->Dispatch([listener = std::move(listener)](HttpConnection& c) mutable {
      c.Listen(std::move(listener));
    });
  }
  void Send(HttpResponse response) override {
    if (!Advance(State::kUnused, State::kDone)) return;
    connection_->Post([response = std::move(response), extra = headers_](
                          HttpConnection& c) mutable { c.SendWhole(std::move(response), extra); });
  }
  void Begin(HttpResponse head) override {
    if (!Advance(State::kUnused, State::kStreaming)) return;
    connection_->Post([head = std::move(head), extra = headers_](HttpConnection& c) mutable {
      c.BeginStream(std::move(head), extra);
    });
  }
  void Write(std::string piece) override {
    if (state_.load() != State::kStreaming) return;
    connection_->Post([piece = std::move(piece)](HttpConnection& c) { c.WriteStream(piece); });
  }
  void Finish() override {
    if (!Advance(State::kStreaming, State::kDone)) return;
    connection_->Post([](HttpConnection& c) { c.FinishStream(); });
  }

 private:
  enum class State { kUnused, kStreaming, kDone };
  bool Advance(State from, State to) { return state_.compare_exchange_strong(from, to); }

  const std::shared_ptr<HttpConnection> connection_;
  std::atomic<State> state_{State::kUnused};
};

HttpParserLimits Limits(const HttpServerOptions& options) {
  return {options.max_header_bytes, options.max_body_bytes};
}

}  // namespace

HttpConnection::HttpConnection(asio::ip::tcp::socket socket, std::shared_ptr<IoThread> thread)
    : thread_(std::move(thread)),
      options_(thread_->shared->options),
      socket_(std::move(socket)),
      parser_(Limits(options_)) {}

void HttpConnection::Start() {
  if (thread_->stopped) {
    thread_->shared->num_connections.fetch_sub(1, std::memory_order_relaxed);
    return;
  }
  error_code error;
  socket_.non_blocking(true, error);
  // Tokens are small and must not wait for each other.
  socket_.set_option(asio::ip::tcp::no_delay(true), error);
  socket_.set_option(asio::socket_base::keep_alive(true), error);
  thread_->connections.insert(shared_from_this());
  Enter(Phase::kIdle, options_.header_timeout);
  WaitReadable();
}

void HttpConnection::Enter(Phase phase, std::chrono::milliseconds timeout) {
  phase_ = phase;
  deadline_ = timeout == timeout.max() ? Time::max() : std::chrono::steady_clock::now() + timeout;
}

void HttpConnection::Close() {
  if (phase_ == Phase::kClosed) return;
  const auto self = shared_from_this();
  if (phase_ == Phase::kAnswering || phase_ == Phase::kWriting) Report();
  phase_ = Phase::kClosed;
  error_code ignored;
  socket_.close(ignored);
  thread_->connections.erase(self);
  thread_->shared->num_connections.fetch_sub(1, std::memory_order_relaxed);
  input_ = {};
  pending_ = outgoing_ = {};
  busy_.reset();
  if (const auto listener = std::exchange(listener_, nullptr)) listener->OnPeerGone();
}

void HttpConnection::CheckDeadline(Time now) {
  if (now < deadline_ && now < write_deadline_) return;
  if (now >= write_deadline_) return Close();
  if (phase_ == Phase::kHead || phase_ == Phase::kBody) {
    return Refuse(408,
                  "the request did not arrive in time (http-header-timeout, "
                  "http-body-timeout)");
  }
  Close();
}

void HttpConnection::WaitReadable() {
  if (reading_ || peer_closed_ || phase_ == Phase::kClosed) return;
  reading_ = true;
  socket_.async_wait(asio::ip::tcp::socket::wait_read,
                     [self = shared_from_this()](error_code error) {
                       self->reading_ = false;
                       if (!error && self->phase_ != Phase::kClosed) self->OnReadable();
                     });
}

void HttpConnection::OnReadable() {
  error_code error;
  const size_t n = socket_.read_some(asio::buffer(thread_->scratch), error);
  if (error == asio::error::would_block) return WaitReadable();
  if (error) return OnPeerClosed();
  OnInput({thread_->scratch.data(), n});
}

void HttpConnection::OnInput(std::string_view bytes) {
  if (phase_ == Phase::kLingering) {
    lingered_ += bytes.size();
    return lingered_ > kMaxLingerBytes ? Close() : WaitReadable();
  }
  input_.append(bytes);
  if (phase_ != Phase::kAnswering && phase_ != Phase::kWriting) return TakeInput();
  if (input_.size() <= options_.max_header_bytes) WaitReadable();
}

void HttpConnection::OnPeerClosed() {
  peer_closed_ = true;
  // A whole answer on its way may still be read by a client that only sends no more.
  if (phase_ != Phase::kWriting) Close();
}

void HttpConnection::TakeInput() {
  input_.erase(0, parser_->Feed(input_));
  switch (parser_->state()) {
    case HttpRequestParser::State::kComplete:
      return Route();
    case HttpRequestParser::State::kFailed:
      return Refuse(parser_->error_status(), parser_->error());
    case HttpRequestParser::State::kBody:
      if (phase_ != Phase::kBody) OnBodyBegins();
      break;
    case HttpRequestParser::State::kHead:
      if (phase_ == Phase::kIdle && !input_.empty()) Enter(Phase::kHead, options_.header_timeout);
      break;
  }
  WaitReadable();
}

void HttpConnection::OnBodyBegins() {
  Enter(Phase::kBody, options_.body_timeout);
  if (!parser_->expects_continue() || !parser_->request().body.empty()) return;
  pending_ += "HTTP/1.1 100 Continue\r\n\r\n";
  Flush();
}

void HttpConnection::Route() {
  Enter(Phase::kAnswering, std::chrono::milliseconds::max());
  HttpRequest request = std::move(parser_->mutable_request());
  parser_.emplace(Limits(options_));
  head_only_ = request.method == "HEAD";
  if (head_only_) request.method = "GET";
  path_ = request.path;
  keep_alive_ = request.keep_alive;
  chunked_ = request.minor_version >= 1;
  status_ = 0;
  busy_.emplace(&thread_->shared->busy);
  thread_->shared->router.Dispatch(std::move(request),
                                   std::make_shared<ConnectionResponder>(shared_from_this()));
  if (input_.size() <= options_.max_header_bytes) WaitReadable();
}

void HttpConnection::Refuse(int status, std::string_view message) {
  path_.clear();
  head_only_ = false;
  keep_alive_ = false;  // where the next request would begin is unknown
  phase_ = Phase::kAnswering;
  SendWhole(ErrorResponse(status, message), {});
}

void HttpConnection::Listen(std::shared_ptr<HttpStreamListener> listener) {
  if (phase_ == Phase::kAnswering) {
    listener_ = std::move(listener);
  } else if (phase_ == Phase::kClosed) {
    listener->OnPeerGone();
  }
}

void HttpConnection::AppendHead(const HttpResponse& response, const HttpHeaders& extra) {
  status_ = response.status;
  if (thread_->shared->close_after_answers) keep_alive_ = false;
  pending_ +=
      fmt::format("HTTP/1.1 {} {}\r\nServer: hgrn2-server/{}\r\nDate: {}\r\n", response.status,
                  ReasonPhrase(response.status), ServerVersion(), HttpDate());
  if (!response.content_type.empty()) {
    pending_.append("Content-Type: ").append(response.content_type).append("\r\n");
  }
  for (const HttpHeaders* headers : {&response.headers, &extra}) {
    for (const auto& [name, value] : *headers) {
      pending_.append(name).append(": ").append(value).append("\r\n");
    }
  }
  // Said in both cases for clients of HTTP/1.0, whose default is the other one.
  pending_ += keep_alive_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
}

void HttpConnection::SendWhole(HttpResponse response, const HttpHeaders& extra) {
  if (phase_ != Phase::kAnswering) return;
  AppendHead(response, extra);
  if (response.status != 204) {
    pending_ += fmt::format("Content-Length: {}\r\n", response.body.size());
  }
  pending_ += "\r\n";
  // HEAD: the headers of GET and no body.
  if (!head_only_) pending_ += response.body;
  Enter(Phase::kWriting, std::chrono::milliseconds::max());
  Flush();
}

void HttpConnection::BeginStream(HttpResponse head, const HttpHeaders& extra) {
  if (phase_ != Phase::kAnswering) return;
  if (!chunked_) keep_alive_ = false;  // HTTP/1.0: the end of the connection ends the answer
  AppendHead(head, extra);
  pending_ += chunked_ ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n";
  WriteStream(head.body);
}

void HttpConnection::AppendPiece(std::string_view piece) {
  if (piece.empty() || head_only_) return;  // an empty chunk would end the answer
  if (!chunked_) {
    pending_ += piece;
    return;
  }
  fmt::format_to(std::back_inserter(pending_), "{:x}\r\n", piece.size());
  pending_.append(piece).append("\r\n");
}

void HttpConnection::WriteStream(std::string_view piece) {
  if (phase_ != Phase::kAnswering) return;
  AppendPiece(piece);
  Flush();
}

void HttpConnection::FinishStream() {
  if (phase_ != Phase::kAnswering) return;
  if (chunked_ && !head_only_) pending_ += "0\r\n\r\n";
  Enter(Phase::kWriting, std::chrono::milliseconds::max());
  Flush();
}

void HttpConnection::Flush() {
  while (!waiting_to_write_) {
    if (sent_ == outgoing_.size()) {
      outgoing_.clear();
      sent_ = 0;
      outgoing_.swap(pending_);
      write_deadline_ = Time::max();
      if (outgoing_.empty()) return OnFlushed();
    }
    error_code error;
    sent_ +=
        socket_.write_some(asio::buffer(outgoing_.data() + sent_, outgoing_.size() - sent_), error);
    if (!error) continue;
    if (error != asio::error::would_block) return Close();
    waiting_to_write_ = true;
    write_deadline_ = std::chrono::steady_clock::now() + options_.write_timeout;
    socket_.async_wait(asio::ip::tcp::socket::wait_write,
                       [self = shared_from_this()](error_code failed) {
                         self->waiting_to_write_ = false;
                         if (!failed && self->phase_ != Phase::kClosed) self->Flush();
                       });
  }
}

void HttpConnection::OnFlushed() {
  if (phase_ == Phase::kWriting) return EndAnswer();
  if (phase_ == Phase::kAnswering && listener_ != nullptr) {
    const auto listener = listener_;  // it may end the answer
    listener->OnWritten();
  }
}

void HttpConnection::Report() {
  if (!options_.on_answered) return;
  constexpr int kClientGone = 499;  // as nginx counts it: nobody sees this status
  options_.on_answered(thread_->shared->router.PathLabel(path_),
                       status_ == 0 ? kClientGone : status_);
}

void HttpConnection::EndAnswer() {
  Report();
  busy_.reset();
  listener_.reset();
  if (peer_closed_) {
    phase_ = Phase::kIdle;
    return Close();
  }
  if (keep_alive_) {
    Enter(Phase::kIdle, options_.idle_timeout);
    return TakeInput();
  }
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  input_ = {};
  Enter(Phase::kLingering, kLingerTime);
  WaitReadable();
}

}  // namespace hgrn2
