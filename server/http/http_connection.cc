#include "server/http/http_connection.h"

#include <boost/asio/post.hpp>
#include <cctype>
#include <utility>

#include "server/version.h"

namespace hgrn2 {

namespace beast = boost::beast;
namespace http = boost::beast::http;

namespace {

class ConnectionResponder : public HttpResponder {
 public:
  explicit ConnectionResponder(std::shared_ptr<HttpConnection> connection)
      : connection_(std::move(connection)) {}
  ~ConnectionResponder() override {
    if (!used_) connection_->Answer(ErrorResponse(500, "the request was dropped"));
  }
  void Send(HttpResponse response) override {
    if (!used_.exchange(true)) connection_->Answer(std::move(response));
  }

 private:
  const std::shared_ptr<HttpConnection> connection_;
  std::atomic<bool> used_{false};
};

// The answer to a request that could not be read; 0: close without one.
int StatusOfReadError(const beast::error_code& error) {
  if (error == http::error::header_limit) return 431;
  if (error == http::error::body_limit) return 413;
  if (error == http::error::end_of_stream || error == http::error::partial_message) return 0;
  static const auto& parse_errors = http::make_error_code(http::error::bad_method).category();
  return error.category() == parse_errors ? 400 : 0;
}

HttpRequest ToNative(http::request<http::string_body>& message) {
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string target(message.target());
  const size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (question != std::string::npos) request.query = target.substr(question + 1);
  for (const auto& field : message) {
    std::string name(field.name_string());
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    request.headers[std::move(name)] = std::string(field.value());
  }
  request.body = std::move(message.body());
  return request;
}

}  // namespace

HttpConnection::HttpConnection(boost::asio::ip::tcp::socket socket,
                               std::shared_ptr<HttpShared> shared)
    : shared_(std::move(shared)), stream_(std::move(socket)) {
  shared_->connections.insert(this);
}

HttpConnection::~HttpConnection() { shared_->connections.erase(this); }

void HttpConnection::Abort() {
  beast::error_code ignored;
  stream_.socket().close(ignored);
}

void HttpConnection::Read() {
  parser_.emplace();
  parser_->header_limit(shared_->options.max_header_bytes);
  parser_->body_limit(shared_->options.max_body_bytes);
  stream_.expires_after(shared_->options.idle_timeout);
  http::async_read(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](beast::error_code error, size_t) { self->OnRead(error); });
}

void HttpConnection::OnRead(beast::error_code error) {
  path_.clear();
  head_ = false;
  if (!error) return Dispatch();
  keep_alive_ = false;  // where the next request would begin is unknown
  const int status = StatusOfReadError(error);
  if (status == 0) return Close();
  Write(ErrorResponse(status, "cannot read the request: " + error.message()));
}

void HttpConnection::Dispatch() {
  stream_.expires_never();  // while the handler works
  keep_alive_ = parser_->get().keep_alive();
  HttpRequest request = ToNative(parser_->get());
  head_ = request.method == "HEAD";
  if (head_) request.method = "GET";
  path_ = request.path;
  shared_->router.Dispatch(request, std::make_shared<ConnectionResponder>(shared_from_this()));
}

void HttpConnection::Answer(HttpResponse response) {
  if (shared_->stopping) return;
  boost::asio::post(stream_.get_executor(),
                    [self = shared_from_this(), response = std::move(response)]() mutable {
                      self->Write(std::move(response));
                    });
}

void HttpConnection::Write(HttpResponse response) {
  response_ = {};
  response_.version(11);
  response_.result(static_cast<unsigned>(response.status));
  response_.set(http::field::server, std::string("hgrn2-server/") + ServerVersion());
  response_.set(http::field::content_type, response.content_type);
  for (const auto& [name, value] : response.headers) response_.set(name, value);
  response_.keep_alive(keep_alive_);
  response_.body() = std::move(response.body);
  response_.prepare_payload();
  // HEAD: the headers of GET, Content-Length included, and no body.
  if (head_) response_.body().clear();
  stream_.expires_after(shared_->options.idle_timeout);
  http::async_write(
      stream_, response_,
      [self = shared_from_this()](beast::error_code error, size_t) { self->OnWrite(error); });
}

void HttpConnection::OnWrite(beast::error_code error) {
  if (shared_->options.on_answered) {
    shared_->options.on_answered(shared_->router.PathLabel(path_),
                                 static_cast<int>(response_.result_int()));
  }
  if (error || !keep_alive_) return Close();
  Read();
}

void HttpConnection::Close() {
  beast::error_code ignored;
  stream_.socket().shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
}

}  // namespace hgrn2
