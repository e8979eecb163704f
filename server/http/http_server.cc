#include "server/http/http_server.h"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <iterator>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/http/http_connection.h"

namespace hgrn2 {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

class BeastServer : public HttpServer {
 public:
  explicit BeastServer(std::shared_ptr<HttpShared> shared)
      : shared_(std::move(shared)), acceptor_(shared_->context), retry_(shared_->context) {}
  ~BeastServer() override;

  absl::Status Listen();
  void Run() {
    Accept();
    thread_ = std::thread([this] { shared_->context.run(); });
  }
  int port() const override { return port_; }

 private:
  void Accept();

  const std::shared_ptr<HttpShared> shared_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  int port_ = 0;
  std::thread thread_;
};

BeastServer::~BeastServer() {
  if (!thread_.joinable()) return;
  asio::post(shared_->context, [this] {
    acceptor_.close();
    retry_.cancel();
    for (HttpConnection* connection : shared_->connections) connection->Abort();
    shared_->stopping = true;
  });
  thread_.join();  // run() returns once every aborted operation has reported
}

absl::Status BeastServer::Listen() {
  const HttpServerOptions& options = shared_->options;
  boost::system::error_code error;
  const auto fail = [&](const char* step) {
    return MakeStatus(absl::StatusCode::kUnavailable,
                      "cannot listen on {}:{} for HTTP: {}: {} (--host, --http-port)", options.host,
                      options.port, step, error.message());
  };
  tcp::resolver resolver(shared_->context);
  const auto endpoints =
      resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error) return fail("resolve");
  const tcp::endpoint endpoint = *endpoints.begin();
  acceptor_.open(endpoint.protocol(), error);
  if (error) return fail("open");
  // A restart must not wait for old connections in TIME_WAIT; a port in use is still an error.
  acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  acceptor_.bind(endpoint, error);
  if (error) return fail("bind");
  acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) return fail("listen");
  port_ = acceptor_.local_endpoint().port();
  return absl::OkStatus();
}

void BeastServer::Accept() {
  acceptor_.async_accept([this](boost::system::error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (error) {
      // Out of file descriptors, most likely: trying again at once would spin.
      LOG_WARNING("HTTP accept: {}", error.message());
      retry_.expires_after(std::chrono::milliseconds(100));
      retry_.async_wait([this](boost::system::error_code stopped) {
        if (!stopped) Accept();
      });
      return;
    }
    // Beyond the limit the socket is closed by its destructor.
    if (std::ssize(shared_->connections) < shared_->options.max_connections) {
      std::make_shared<HttpConnection>(std::move(socket), shared_)->Read();
    }
    Accept();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options,
                                                              HttpRouter router) {
  auto shared = std::make_shared<HttpShared>();
  shared->options = std::move(options);
  shared->router = std::move(router);
  auto server = std::make_unique<BeastServer>(std::move(shared));
  RETURN_IF_ERROR(server->Listen());
  server->Run();
  return server;
}

}  // namespace hgrn2
