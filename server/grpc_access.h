// Who may call over gRPC: TLS of the port, API keys of the calls.
#pragma once

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_context.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/options.h"

namespace hgrn2 {

// Plain, or TLS as the grpc-tls flags say; with grpc-tls-client-ca only for clients with a
// certificate of that authority. INVALID_ARGUMENT: a file that is missing or is not PEM.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerOptions& options);

// UNAUTHENTICATED unless `keys` is empty or the call has one of them as "authorization: Bearer
// KEY".
absl::Status CheckApiKey(const std::vector<std::string>& keys, const grpc::ServerContextBase& call);

}  // namespace hgrn2
