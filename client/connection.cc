#include "client/connection.h"

#include <chrono>
#include <string_view>
#include <utility>

#include "client/text_io.h"

namespace hgrn2::client {
namespace {

// A proxy from the environment must not capture calls to this machine.
bool IsLocal(std::string_view target) {
  for (std::string_view prefix : {"localhost", "127.", "[::1]", "unix:", "unix-abstract:"}) {
    if (target.substr(0, prefix.size()) == prefix) return true;
  }
  return false;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const ConnectionOptions& options) {
  const bool tls = options.tls || !options.tls_ca.empty() || !options.tls_cert.empty() ||
                   !options.tls_server_name.empty();
  if (!tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  const std::pair<const std::string*, std::string*> files[] = {
      {&options.tls_ca, &ssl.pem_root_certs},
      {&options.tls_cert, &ssl.pem_cert_chain},
      {&options.tls_key, &ssl.pem_private_key}};
  for (const auto& [path, pem] : files) {
    if (path->empty()) continue;
    absl::StatusOr<std::string> text = ReadFile(*path);
    if (!text.ok()) return text.status();
    *pem = *std::move(text);
  }
  return grpc::SslCredentials(ssl);
}

}  // namespace

void AddConnectionOptions(CLI::App* app, ConnectionOptions* options) {
  constexpr char kGroup[] = "Connection";
  app->add_option("--target", options->targets, "Server address, host:port or a gRPC target URI")
      ->envname("HGRN2_TARGET")
      ->delimiter(',')
      ->allow_extra_args(false)  // else it would swallow a prompt that follows it
      ->capture_default_str()
      ->group(kGroup);
  app->add_option("--api-key", options->api_key, "Sent as 'authorization: Bearer KEY'")
      ->envname("HGRN2_API_KEY")
      ->group(kGroup);
  app->add_option("--timeout", options->timeout_s, "Deadline of each call in seconds; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  app->add_flag("--tls", options->tls, "Use TLS; implied by the other TLS flags and by https://")
      ->group(kGroup);
  app->add_option("--tls-ca", options->tls_ca, "PEM file of trusted roots (default: the system's)")
      ->group(kGroup);
  auto* cert =
      app->add_option("--tls-cert", options->tls_cert, "PEM file of the client's certificate")
          ->group(kGroup);
  auto* key = app->add_option("--tls-key", options->tls_key, "PEM file of the client's key")
                  ->needs(cert)
                  ->group(kGroup);
  cert->needs(key);
  app->add_option("--tls-server-name", options->tls_server_name,
                  "Name expected in the server's certificate")
      ->group(kGroup);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ConnectionOptions& options,
                                                           const std::string& target) {
  auto credentials = MakeCredentials(options);
  if (!credentials.ok()) return credentials.status();
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(-1);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (IsLocal(target)) args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!options.tls_server_name.empty()) args.SetSslTargetNameOverride(options.tls_server_name);
  return grpc::CreateCustomChannel(target, *credentials, args);
}

void PrepareContext(const ConnectionOptions& options, grpc::ClientContext* context) {
  if (!options.api_key.empty()) {
    context->AddMetadata("authorization", "Bearer " + options.api_key);
  }
  if (options.timeout_s > 0) {
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::microseconds(static_cast<int64_t>(options.timeout_s * 1e6)));
  }
}

}  // namespace hgrn2::client
