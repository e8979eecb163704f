#include "client/http_url.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

namespace hgrn2::client {
namespace {

constexpr std::string_view kPlain = "http://";
constexpr std::string_view kTls = "https://";

bool StartsWith(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

// Splits "host", "host:port", "[v6]" or "[v6]:port".
bool SplitAuthority(std::string_view authority, HttpUrl* url) {
  size_t host_end = authority.find(':');
  if (StartsWith(authority, "[")) {
    const size_t bracket = authority.find(']');
    if (bracket == std::string_view::npos) return false;
    url->host = std::string(authority.substr(1, bracket - 1));
    host_end = bracket + 1;
  } else {
    url->host = std::string(authority.substr(0, host_end));
  }
  if (url->host.empty()) return false;
  if (host_end >= authority.size()) return true;
  if (authority[host_end] != ':') return false;
  url->port = std::string(authority.substr(host_end + 1));
  return !url->port.empty() && url->port.size() <= 5 &&
         std::all_of(url->port.begin(), url->port.end(),
                     [](char c) { return c >= '0' && c <= '9'; }) &&
         std::stoi(url->port) <= 65535;
}

}  // namespace

std::string HttpUrl::host_header() const {
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return port == (tls ? "443" : "80") ? name : name + ":" + port;
}

bool IsHttpUrl(std::string_view text) { return StartsWith(text, kPlain) || StartsWith(text, kTls); }

absl::StatusOr<HttpUrl> ParseHttpUrl(std::string_view text) {
  HttpUrl url;
  url.tls = StartsWith(text, kTls);
  url.port = url.tls ? "443" : "80";
  const std::string_view rest =
      text.substr(std::min(text.size(), (url.tls ? kTls : kPlain).size()));
  const size_t slash = rest.find('/');
  const bool clean =
      std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
  if (!IsHttpUrl(text) || !clean || !SplitAuthority(rest.substr(0, slash), &url)) {
    return absl::InvalidArgumentError(
        fmt::format("'{}': expected http://HOST[:PORT][/PATH] or https://...", text));
  }
  if (slash != std::string_view::npos) url.path = std::string(rest.substr(slash));
  return url;
}

}  // namespace hgrn2::client
