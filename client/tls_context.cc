#include "client/tls_context.h"

#include <fmt/format.h>

#include <string>

namespace hgrn2::client {

namespace ssl = boost::asio::ssl;

absl::StatusOr<std::unique_ptr<ssl::context>> MakeTlsContext(const ConnectionOptions& options) {
  auto context = std::make_unique<ssl::context>(ssl::context::tls_client);
  context->set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 |
                       ssl::context::no_tlsv1_1);
  context->set_verify_mode(ssl::verify_peer);
  boost::system::error_code error;
  const auto failed = [&](const std::string& file) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", file, error.message()));
  };
  if (options.tls_ca.empty()) {
    context->set_default_verify_paths(error);
    if (error) return failed("the system's certificates");
  } else if (context->load_verify_file(options.tls_ca, error); error) {
    return failed(options.tls_ca);
  }
  if (options.tls_cert.empty()) return context;
  if (context->use_certificate_chain_file(options.tls_cert, error); error) {
    return failed(options.tls_cert);
  }
  if (context->use_private_key_file(options.tls_key, ssl::context::pem, error); error) {
    return failed(options.tls_key);
  }
  return context;
}

}  // namespace hgrn2::client
