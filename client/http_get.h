// One GET over HTTP or HTTPS.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/connection.h"

namespace hgrn2::client {

// Body of http[s]://host[:port]/path if it is answered with status 200 within 2 s. Uses the API key
// and the TLS files of `connection`.
absl::StatusOr<std::string> HttpGet(const std::string& url,
                                    const ConnectionOptions& connection = {});

}  // namespace hgrn2::client
