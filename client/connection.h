// How every subcommand reaches a server: targets, TLS, API key, time limit.
#pragma once

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2::client {

inline constexpr const char kDefaultTarget[] = "localhost:50051";

struct ConnectionOptions {
  std::vector<std::string> targets = {kDefaultTarget};
  bool tls = false;
  std::string tls_ca;    // PEM file; empty: the system's roots
  std::string tls_cert;  // PEM files of a client certificate, both or neither
  std::string tls_key;
  std::string tls_server_name;  // name expected in the certificate, if not the target's
  std::string api_key;
  double timeout_s = 0;  // deadline of each call; 0: none

  const std::string& target() const { return targets.front(); }
};

// Adds --target, --tls..., --api-key and --timeout to a subcommand.
void AddConnectionOptions(CLI::App* app, ConnectionOptions* options);

// A channel of its own (never shares a TCP connection with another channel). Connects lazily.
// Fails only if a TLS file can't be read.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ConnectionOptions& options,
                                                           const std::string& target);

// Adds the authorization header and the deadline. REQUIRES: `context` not started yet.
void PrepareContext(const ConnectionOptions& options, grpc::ClientContext* context);

}  // namespace hgrn2::client
