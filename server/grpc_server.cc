#include "server/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include <mutex>
#include <utility>

#include "base/status.h"
#include "server/grpc_access.h"
#include "server/hang_up.h"

namespace hgrn2 {
namespace {

constexpr const char kServiceName[] = "hgrn2.v1.Inference";
constexpr const char kKserveName[] = "inference.GRPCInferenceService";

// Both are process-wide switches that must precede the first builder.
void EnableHealthAndReflection() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

int Milliseconds(double seconds) { return static_cast<int>(seconds * 1000); }

void SetChannelArguments(const ServerOptions& options, grpc::ServerBuilder* builder) {
  // With SO_REUSEPORT two servers would silently share a port.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients behind load balancers ping to keep idle connections; the default would disconnect them.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  // Our own pings find clients that vanished without a word, so that their requests are cancelled.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  if (options.grpc_max_connection_age > 0) {
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                                Milliseconds(options.grpc_max_connection_age));
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                                Milliseconds(options.grpc_max_connection_age_grace));
  }
}

}  // namespace

std::string JoinHostPort(const std::string& host, int port) {
  const bool bare_ipv6 = host.find(':') != std::string::npos && !host.starts_with('[');
  return bare_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(InferenceService& service,
                                                              const ServerOptions& options,
                                                              KserveService* kserve) {
  EnableHealthAndReflection();
  const std::string address = JoinHostPort(options.host, options.grpc_port);
  grpc::ServerBuilder builder;
  SetChannelArguments(options, &builder);
  builder.SetMaxReceiveMessageSize(options.grpc_max_message_bytes);
  builder.SetMaxSendMessageSize(-1);  // what we send is bounded where it is made
  builder.RegisterService(&service);
  if (kserve != nullptr) builder.RegisterService(kserve);
  int port = 0;
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ServerCredentials> credentials,
                   MakeServerCredentials(options));
  builder.AddListeningPort(address, credentials, &port);
  auto acceptor = std::make_unique<GenerateAcceptor>(service, &builder);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return MakeStatus(
        absl::StatusCode::kUnavailable,
        "cannot listen on {} for gRPC: the port is in use or the address is not "
        "this host's (--host, --grpc-port){}",
        address,
        options.grpc_tls_cert.empty()
            ? ""
            : "; or certificate and key do not fit (--grpc-tls-cert, --grpc-tls-key)");
  }
  acceptor->Start(port);
  auto result =
      std::unique_ptr<GrpcServer>(new GrpcServer(std::move(server), std::move(acceptor), port));
  result->SetServing(true);
  return result;
}

GrpcServer::~GrpcServer() { Shutdown(Duration::zero()); }

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* const health = server_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus(kServiceName, serving);
  health->SetServingStatus(kKserveName, serving);
}

void GrpcServer::Shutdown(Duration grace) {
  HangUp(port_);
  server_->Shutdown(std::chrono::system_clock::now() +
                    std::chrono::duration_cast<std::chrono::system_clock::duration>(grace));
  server_->Wait();
  acceptor_->Stop();
}

}  // namespace hgrn2
