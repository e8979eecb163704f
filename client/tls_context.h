// TLS of the HTTP connections, from the same flags as that of gRPC.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "absl/status/statusor.h"
#include "client/connection.h"

namespace hgrn2::client {

// Checks the server's certificate against --tls-ca or the system's roots; TLS 1.2 or newer.
absl::StatusOr<std::unique_ptr<boost::asio::ssl::context>> MakeTlsContext(
    const ConnectionOptions& options);

}  // namespace hgrn2::client
