// The listening gRPC server: Inference, health and reflection.
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "server/generate_acceptor.h"
#include "server/inference_service.h"
#include "server/kserve/kserve_service.h"
#include "server/options.h"

namespace hgrn2 {

// "host:port", "[host]:port" for an IPv6 address.
std::string JoinHostPort(const std::string& host, int port);

// Thread-safe.
class GrpcServer {
 public:
  // Listens and serves. The services outlive the server, and have no other. UNAVAILABLE: cannot
  // listen.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(InferenceService& service,
                                                           const ServerOptions& options,
                                                           KserveService* kserve = nullptr);
  ~GrpcServer();

  int port() const { return port_; }
  // What grpc.health.v1 says of "", of hgrn2.v1.Inference and of inference.GRPCInferenceService.
  void SetServing(bool serving);
  // Closes the port and its connections, so that calls which have not ended, or come too late, are
  // UNAVAILABLE to their clients. Returns when all have ended here; cancels those that take longer
  // than `grace`. Once every call that should end well has ended.
  void Shutdown(Duration grace);

 private:
  GrpcServer(std::unique_ptr<grpc::Server> server, std::unique_ptr<GenerateAcceptor> acceptor,
             int port)
      : acceptor_(std::move(acceptor)), server_(std::move(server)), port_(port) {}

  const std::unique_ptr<GenerateAcceptor> acceptor_;
  const std::unique_ptr<grpc::Server> server_;
  const int port_;
};

}  // namespace hgrn2
