#include "server/otlp/json_post.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <utility>

#include "base/status.h"

namespace hgrn2 {
namespace {

namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using Error = boost::system::error_code;

constexpr size_t kMaxAnswerBytes = 64 << 10;

bool IsPort(std::string_view text) {
  int port = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && stop == text.data() + text.size() && port > 0 && port <= 65535;
}

}  // namespace

std::optional<HttpEndpoint> ParseHttpEndpoint(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  const auto is_plain = [](char c) {
    return c > ' ' && c < 127 && c != '@' && c != '?' && c != '#';
  };
  if (!url.starts_with(kScheme) || !std::all_of(url.begin(), url.end(), is_plain)) {
    return std::nullopt;
  }
  url.remove_prefix(kScheme.size());
  const size_t slash = std::min(url.find('/'), url.size());
  std::string_view host = url.substr(0, slash);
  HttpEndpoint endpoint{"", "80", slash < url.size() ? std::string(url.substr(slash)) : "/",
                        std::string(host)};
  const size_t colon = host.rfind(':');
  const bool has_port = colon != std::string_view::npos && host.find(']', colon) == host.npos;
  if (has_port) {
    endpoint.port = std::string(host.substr(colon + 1));
    host = host.substr(0, colon);
  }
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host.empty() || !IsPort(endpoint.port)) return std::nullopt;
  if (host.find_first_of("[]") != host.npos) return std::nullopt;
  if ((host.find(':') != host.npos) != bracketed) return std::nullopt;
  endpoint.host = std::string(host);
  return endpoint;
}

// Handlers that Run leaves behind are destroyed with the context, not called.
struct JsonPost::State {
  void Resolve() {
    resolver.async_resolve(endpoint.host, endpoint.port,
                           [this](const Error& error, const tcp::resolver::results_type& found) {
                             if (!Failed("cannot resolve the host", error)) Connect(found);
                           });
  }
  void Connect(const tcp::resolver::results_type& found) {
    stream.async_connect(found, [this](const Error& error, const tcp::endpoint&) {
      if (!Failed("cannot connect", error)) Write();
    });
  }
  void Write() {
    http::async_write(stream, request, [this](const Error& error, size_t) {
      if (!Failed("cannot send", error)) Read();
    });
  }
  void Read() {
    answer.body_limit(kMaxAnswerBytes);
    http::async_read(stream, buffer, answer, [this](const Error& error, size_t) {
      if (!Failed("no answer", error)) result = answer.get().result_int();
    });
  }
  bool Failed(const char* what, const Error& error) {
    if (error) result = MakeStatus(absl::StatusCode::kUnavailable, "{}: {}", what, error.message());
    return static_cast<bool>(error);
  }

  HttpEndpoint endpoint;
  absl::StatusOr<int> result;
  boost::asio::io_context context{1};
  tcp::resolver resolver{context};
  boost::beast::tcp_stream stream{context};
  boost::beast::flat_buffer buffer;
  http::request<http::string_body> request{http::verb::post, "/", 11};
  http::response_parser<http::string_body> answer;
};

JsonPost::JsonPost(const HttpEndpoint& endpoint, std::string json)
    : state_(std::make_unique<State>()) {
  state_->endpoint = endpoint;
  auto& request = state_->request;
  request.target(endpoint.path);
  request.set(http::field::host, endpoint.authority);
  request.set(http::field::content_type, "application/json");
  request.set(http::field::user_agent, "hgrn2-server");
  request.body() = std::move(json);
  request.keep_alive(false);
  request.prepare_payload();
}

JsonPost::~JsonPost() = default;

absl::StatusOr<int> JsonPost::Run(Duration timeout) {
  state_->result =
      MakeStatus(absl::StatusCode::kUnavailable, "no answer within {:.3g} s", ToSeconds(timeout));
  state_->Resolve();
  state_->context.run_for(timeout);
  return state_->result;
}

void JsonPost::Stop() { state_->context.stop(); }

}  // namespace hgrn2
