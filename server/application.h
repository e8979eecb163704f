// The whole server, put together: checkpoint, engines, frontend, gRPC and HTTP.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/chat/chat_templates.h"
#include "engine/engine.h"
#include "engine/frontend/frontend.h"
#include "server/grpc_server.h"
#include "server/http/http_server.h"
#include "server/inference_service.h"
#include "server/kserve/kserve_service.h"
#include "server/metrics.h"
#include "server/openai/gateway.h"
#include "server/options.h"
#include "server/otlp/span_exporter.h"

namespace hgrn2 {

class Application {
 public:
  using BackendFactory = std::function<absl::StatusOr<std::unique_ptr<Backend>>(
      const DeviceSpec& device, const ModelWeights& weights, const ServerOptions& options)>;

  // Loads the model and starts its engines; logs what they are and cost. `on_fatal` runs on an
  // engine thread when a device fails. `make_backend` is MakeBackend but in tests.
  static absl::StatusOr<std::unique_ptr<Application>> Load(
      const ServerOptions& options, const BackendFactory& make_backend,
      std::function<void(const absl::Status&)> on_fatal);

  // Opens the ports, logs them, and turns ready. Once, before anything below.
  absl::Status Listen();

  // Turns unready, refuses new requests, lets running ones finish for up to shutdown-timeout, ends
  // the rest. True unless a device failed. Once.
  bool Drain();

  int grpc_port() const { return grpc_->port(); }
  int http_port() const { return http_->port(); }

 private:
  explicit Application(const ServerOptions& options) : options_(options) {}
  absl::Status StartEngines(const BackendFactory& make_backend);
  absl::Status StartHttp();
  void StartTraces();
  void LogModel(const ModelWeights& weights) const;

  const ServerOptions options_;
  // In the order of construction; destroyed from the last to the first.
  ModelConfig config_;
  GenerationDefaults defaults_;
  std::string model_hash_;
  std::unique_ptr<Tokenizer> tokenizer_;  // may be null
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<SpanExporter> spans_;  // null: no traces
  std::unique_ptr<Engine> engine_;
  std::vector<grpc::CompletionQueue*> worker_queues_;  // the frontend's
  std::unique_ptr<Frontend> frontend_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<KserveService> kserve_;
  std::unique_ptr<const ChatTemplates> chat_;  // null if the checkpoint's cannot be used
  std::unique_ptr<Gateway> gateway_;
  std::atomic<bool> ready_{false};
  std::unique_ptr<GrpcServer> grpc_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace hgrn2
