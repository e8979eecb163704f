#include "server/http/http_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "server/http/http_connection.h"
#include "server/http/io_thread.h"

namespace hgrn2 {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

// The usual soft limit of 1024 files is below what a server of streams needs.
void RaiseFileLimit(int32_t max_connections) {
  constexpr rlim_t kOthers = 256;  // gRPC, the model, logs
  const rlim_t wanted = static_cast<rlim_t>(max_connections) + kOthers;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted) {
    LOG_WARNING("this process may open {} files, fewer than {} connections need (ulimit -n)",
                limit.rlim_cur, max_connections);
  }
}

// Accepts on the first I/O thread and deals connections out in turn.
class AsioServer : public HttpServer {
 public:
  explicit AsioServer(std::shared_ptr<HttpShared> shared)
      : shared_(std::move(shared)),
        threads_(MakeThreads(shared_)),
        acceptor_(threads_[0]->context),
        retry_(threads_[0]->context) {}
  ~AsioServer() override;

  absl::Status Listen();
  void Run() {
    Accept();
    for (const auto& thread : threads_) thread->Start();
    running_ = true;
  }
  int port() const override { return port_; }
  int64_t num_connections() const override {
    return shared_->num_connections.load(std::memory_order_relaxed);
  }
  void CloseAfterAnswers() override { shared_->close_after_answers = true; }
  bool Drain(Duration timeout) override {
    CloseAfterAnswers();
    StopAccepting();
    return shared_->busy.WaitForNone(timeout);
  }

 private:
  static std::vector<std::shared_ptr<IoThread>> MakeThreads(
      const std::shared_ptr<HttpShared>& shared) {
    std::vector<std::shared_ptr<IoThread>> threads;
    for (int32_t i = 0; i < std::max(1, shared->options.num_threads); ++i) {
      threads.push_back(std::make_shared<IoThread>(shared));
    }
    return threads;
  }
  void Accept();
  void OnAccepted(tcp::socket socket, const std::shared_ptr<IoThread>& thread);
  void StopAccepting();

  const std::shared_ptr<HttpShared> shared_;
  const std::vector<std::shared_ptr<IoThread>> threads_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  size_t next_thread_ = 0;
  int port_ = 0;
  bool running_ = false;
};

AsioServer::~AsioServer() {
  if (!running_) return;
  StopAccepting();
  for (const auto& thread : threads_) thread->Stop();
  shared_->stopping = true;
}

void AsioServer::StopAccepting() {
  asio::post(threads_[0]->context, [this] {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
  });
}

absl::Status AsioServer::Listen() {
  const HttpServerOptions& options = shared_->options;
  boost::system::error_code error;
  const auto fail = [&](const char* step) {
    return MakeStatus(absl::StatusCode::kUnavailable,
                      "cannot listen on {}:{} for HTTP: {}: {} (--host, --http-port)", options.host,
                      options.port, step, error.message());
  };
  RaiseFileLimit(options.max_connections);
  tcp::resolver resolver(threads_[0]->context);
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

void AsioServer::Accept() {
  const std::shared_ptr<IoThread>& thread = threads_[next_thread_++ % threads_.size()];
  acceptor_.async_accept(thread->context,
                         [this, &thread](boost::system::error_code error, tcp::socket socket) {
                           if (error == asio::error::operation_aborted) return;
                           if (error) {
                             // Out of file descriptors, most likely: trying again at once would
                             // spin.
                             LOG_WARNING("HTTP accept: {}", error.message());
                             retry_.expires_after(std::chrono::milliseconds(100));
                             retry_.async_wait([this](boost::system::error_code stopped) {
                               if (!stopped && acceptor_.is_open()) Accept();
                             });
                             return;
                           }
                           OnAccepted(std::move(socket), thread);
                           Accept();
                         });
}

void AsioServer::OnAccepted(tcp::socket socket, const std::shared_ptr<IoThread>& thread) {
  // Beyond the limit the socket is closed by its destructor.
  if (num_connections() >= shared_->options.max_connections) return;
  shared_->num_connections.fetch_add(1, std::memory_order_relaxed);
  auto connection = std::make_shared<HttpConnection>(std::move(socket), thread);
  asio::post(thread->context, [connection = std::move(connection)] { connection->Start(); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options,
                                                              HttpRouter router) {
  auto shared = std::make_shared<HttpShared>();
  shared->options = std::move(options);
  shared->router = std::move(router);
  auto server = std::make_unique<AsioServer>(std::move(shared));
  RETURN_IF_ERROR(server->Listen());
  server->Run();
  return server;
}

}  // namespace hgrn2
