// http:// and https:// addresses.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace hgrn2::client {

struct HttpUrl {
  bool tls = false;
  std::string host;  // an IPv6 address without its brackets
  std::string port;
  std::string path;  // with what follows it; empty or begins with '/'

  // As the Host header wants it: without the scheme's own port.
  std::string host_header() const;
};

bool IsHttpUrl(std::string_view text);
absl::StatusOr<HttpUrl> ParseHttpUrl(std::string_view text);

}  // namespace hgrn2::client
