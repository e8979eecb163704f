#include "client/load/metrics_scraper.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cstdlib>
#include <sstream>
#include <utility>

namespace hgrn2::client {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;

constexpr auto kTimeout = std::chrono::seconds(2);

// Names whose value over time is worth a chart; everything else only by its increase.
bool IsGauge(const std::string& name) {
  for (const char* gauge :
       {"vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"}) {
    if (name == gauge) return true;
  }
  return false;
}

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

absl::StatusOr<std::string> HttpGet(const std::string& url) {
  const std::string scheme = "http://";
  if (url.rfind(scheme, 0) != 0) {
    return absl::InvalidArgumentError(fmt::format("'{}': expected http://host[:port]/path", url));
  }
  const size_t slash = url.find('/', scheme.size());
  std::string host = url.substr(scheme.size(), slash - scheme.size());
  const std::string path = slash == std::string::npos ? "/" : url.substr(slash);
  std::string port = "80";
  const size_t colon = host.rfind(':');
  if (colon != std::string::npos && host.find(']', colon) == std::string::npos) {
    port = host.substr(colon + 1);
    host.resize(colon);
  }
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);

  // Asynchronous operations run to their end here: the synchronous ones have no time limit.
  asio::io_context io;
  beast::error_code error;
  asio::ip::tcp::resolver resolver(io);
  const auto endpoints = resolver.resolve(host, port, error);
  if (error) return absl::UnavailableError(fmt::format("{}: {}", url, error.message()));
  beast::tcp_stream stream(io);
  stream.expires_after(kTimeout);
  beast::http::request<beast::http::empty_body> request(beast::http::verb::get, path, 11);
  request.set(beast::http::field::host, host);
  request.set(beast::http::field::connection, "close");
  beast::flat_buffer buffer;
  beast::http::response<beast::http::string_body> response;
  const auto step = [&](beast::error_code e, auto next) {
    error = e;
    if (!e) next();
  };
  stream.async_connect(endpoints, [&](beast::error_code e, const auto&) {
    step(e, [&] {
      beast::http::async_write(stream, request, [&](beast::error_code e, size_t) {
        step(e, [&] {
          beast::http::async_read(stream, buffer, response,
                                  [&](beast::error_code e, size_t) { error = e; });
        });
      });
    });
  });
  io.run();
  if (error) return absl::UnavailableError(fmt::format("{}: {}", url, error.message()));
  if (response.result() != beast::http::status::ok) {
    return absl::UnavailableError(fmt::format("{}: HTTP status {}", url, response.result_int()));
  }
  return std::move(response.body());
}

std::map<std::string, double> ParseMetrics(const std::string& text) {
  std::map<std::string, double> values;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t name_end = line.find_first_of("{ ");
    if (name_end == std::string::npos) continue;
    const std::string name = line.substr(0, name_end);
    if (EndsWith(name, "_bucket")) continue;
    size_t value_begin = name_end;
    if (line[name_end] == '{') {  // label values may hold braces and spaces, in quotes
      bool quoted = false;
      for (; value_begin < line.size() && (quoted || line[value_begin] != '}'); ++value_begin) {
        if (line[value_begin] == '\\')
          ++value_begin;
        else if (line[value_begin] == '"')
          quoted = !quoted;
      }
      ++value_begin;
    }
    if (value_begin >= line.size()) continue;
    const char* begin = line.c_str() + value_begin;
    char* end = nullptr;
    const double value = std::strtod(begin, &end);
    if (end != begin) values[name] += value;
  }
  return values;
}

MetricsScraper::MetricsScraper(std::string url)
    : url_(std::move(url)), start_(std::chrono::steady_clock::now()), thread_([this] { Loop(); }) {}

MetricsScraper::~MetricsScraper() {
  if (thread_.joinable()) Finish();
}

void MetricsScraper::Loop() {
  std::unique_lock lock(mu_);
  do {
    lock.unlock();
    ScrapeOnce();
    lock.lock();
  } while (!changed_.wait_for(lock, std::chrono::seconds(1), [this] { return done_; }));
}

void MetricsScraper::ScrapeOnce() {
  const std::chrono::duration<double> t = std::chrono::steady_clock::now() - start_;
  const absl::StatusOr<std::string> body = HttpGet(url_);
  std::lock_guard lock(mu_);
  error_ = body.ok() ? "" : std::string(body.status().message());
  if (!body.ok()) return;
  last_ = ParseMetrics(*body);
  if (first_.empty()) first_ = last_;
  for (const auto& [name, value] : last_) {
    if (IsGauge(name)) series_[name].push_back({t.count(), value});
  }
}

nlohmann::ordered_json MetricsScraper::Finish() {
  {
    std::lock_guard lock(mu_);
    done_ = true;
  }
  changed_.notify_all();
  thread_.join();
  ScrapeOnce();
  nlohmann::ordered_json json{{"url", url_}};
  if (!error_.empty()) json["error"] = error_;
  json["delta"] = nlohmann::ordered_json::object();
  for (const auto& [name, value] : last_) {
    const bool counter =
        EndsWith(name, "_total") || EndsWith(name, "_sum") || EndsWith(name, "_count");
    const auto before = first_.find(name);
    if (!counter || before == first_.end()) continue;
    if (value != before->second) json["delta"][name] = value - before->second;
  }
  json["series"] = nlohmann::ordered_json::object();
  for (const auto& [name, points] : series_) json["series"][name] = points;
  return json;
}

}  // namespace hgrn2::client
