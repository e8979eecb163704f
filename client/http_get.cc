#include "client/http_get.h"

#include <fmt/format.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>

#include "client/http_url.h"
#include "client/load/http_connection.h"
#include "client/tls_context.h"

namespace hgrn2::client {
namespace {

namespace asio = boost::asio;

constexpr auto kTimeout = std::chrono::seconds(2);

class WholeAnswer : public HttpConnection::Exchange {
 public:
  bool OnSent() override { return true; }
  bool OnEvent(std::string_view) override { return true; }
  void OnAnswered(const HttpAnswerParser& answer, HttpConnection* connection) override {
    connection->Close();
    if (answer.status() != 200) {
      result = absl::UnavailableError(fmt::format("HTTP status {}", answer.status()));
    } else {
      result = answer.body();
    }
  }
  void OnFailed(const std::string& error, bool) override { result = absl::UnavailableError(error); }
  void OnStopped() override {}

  absl::StatusOr<std::string> result = absl::UnavailableError("no answer within 2 s");
};

}  // namespace

absl::StatusOr<std::string> HttpGet(const std::string& text, const ConnectionOptions& options) {
  absl::StatusOr<HttpUrl> url = ParseHttpUrl(text);
  if (!url.ok()) return url.status();
  HttpEndpoint endpoint;
  endpoint.host = options.tls_server_name.empty() ? url->host : options.tls_server_name;
  std::unique_ptr<asio::ssl::context> tls;
  if (url->tls) {
    auto context = MakeTlsContext(options);
    if (!context.ok()) return context.status();
    tls = *std::move(context);
    endpoint.tls = tls.get();
  }
  asio::io_context io;
  boost::system::error_code error;
  asio::ip::tcp::resolver resolver(io);
  for (const auto& entry : resolver.resolve(url->host, url->port, error)) {
    endpoint.addresses.push_back(entry.endpoint());
  }
  if (error || endpoint.addresses.empty()) {
    return absl::UnavailableError(fmt::format("{}: {}", text, error.message()));
  }
  std::string request = fmt::format(
      "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: hgrn2-client\r\nConnection: close\r\n",
      url->path.empty() ? "/" : url->path, url->host_header());
  if (!options.api_key.empty()) request += "Authorization: Bearer " + options.api_key + "\r\n";
  WholeAnswer answer;
  auto connection = std::make_shared<HttpConnection>(&io, &endpoint);
  connection->Send(request + "\r\n", &answer);
  io.run_for(kTimeout);  // or until the connection is closed
  connection->Close();
  io.restart();
  io.poll();
  if (answer.result.ok()) return answer.result;
  return absl::UnavailableError(
      fmt::format("{}: {}", text, std::string(answer.result.status().message())));
}

}  // namespace hgrn2::client
