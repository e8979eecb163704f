#include "server/grpc_access.h"

#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "server/http/http_gate.h"

namespace hgrn2 {
namespace {

absl::StatusOr<std::string> ReadPem(std::string_view flag, const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return InvalidArgument(flag, "cannot open file '{}'", file);
  std::ostringstream text;
  text << stream.rdbuf();
  if (text.str().find("-----BEGIN ") == std::string::npos) {
    return InvalidArgument(flag, "file '{}' is not PEM", file);
  }
  return text.str();
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerOptions& options) {
  if (options.grpc_tls_cert.empty() != options.grpc_tls_key.empty()) {
    return InvalidArgument("grpc-tls-key", "grpc-tls-cert and grpc-tls-key belong together");
  }
  if (options.grpc_tls_cert.empty()) {
    if (options.grpc_tls_client_ca.empty()) return grpc::InsecureServerCredentials();
    return InvalidArgument("grpc-tls-client-ca", "needs grpc-tls-cert and grpc-tls-key");
  }
  grpc::SslServerCredentialsOptions ssl;
  ASSIGN_OR_RETURN(std::string cert, ReadPem("grpc-tls-cert", options.grpc_tls_cert));
  ASSIGN_OR_RETURN(std::string key, ReadPem("grpc-tls-key", options.grpc_tls_key));
  ssl.pem_key_cert_pairs.push_back({std::move(key), std::move(cert)});
  if (!options.grpc_tls_client_ca.empty()) {
    ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem("grpc-tls-client-ca", options.grpc_tls_client_ca));
    ssl.client_certificate_request = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  }
  return grpc::SslServerCredentials(ssl);
}

absl::Status CheckApiKey(const std::vector<std::string>& keys,
                         const grpc::ServerContextBase& call) {
  if (keys.empty()) return absl::OkStatus();
  const auto found = call.client_metadata().find("authorization");
  if (found != call.client_metadata().end() &&
      HasApiKey({found->second.data(), found->second.size()}, keys)) {
    return absl::OkStatus();
  }
  return MakeStatus(absl::StatusCode::kUnauthenticated,
                    "a valid API key is needed: metadata 'authorization: Bearer KEY'");
}

}  // namespace hgrn2
