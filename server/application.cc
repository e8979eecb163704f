#include "server/application.h"

#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "engine/loader/weights.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/completion_queue.h"
#include "server/convert.h"
#include "server/engine_router.h"
#include "server/ops_routes.h"
#include "server/playground/playground.h"
#include "server/version.h"

namespace hgrn2 {
namespace {

// Time for the last messages to reach their readers once every request has ended.
constexpr Duration kFlushTime = std::chrono::seconds(5);
// Calls that still come are refused until none has come for this long: a refused call is sent to
// another replica, one whose connection goes down may not be. So balancers have the time to see
// that this replica is not ready.
constexpr Duration kQuietTime = std::chrono::milliseconds(400);
constexpr Duration kMaxLinger = std::chrono::seconds(3);
// For the traces of the last requests to reach the collector.
constexpr Duration kTraceFlushTime = std::chrono::seconds(1);
// For calls that are cut off to end on our side.
constexpr Duration kHangUpTime = std::chrono::milliseconds(100);

std::string ServedName(const ServerOptions& options) {
  if (!options.served_model_name.empty()) return options.served_model_name;
  std::error_code error;
  const auto path = std::filesystem::weakly_canonical(options.model, error);
  // A trailing slash leaves an empty last component.
  const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
  return name.empty() ? "model" : name;
}

double MebiBytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

EngineOptions ToEngineOptions(const ServerOptions& options, Metrics* metrics) {
  EngineOptions engine;
  engine.max_num_batched_tokens = options.max_num_batched_tokens;
  engine.max_num_prefill_tokens = options.max_num_prefill_tokens;
  engine.max_num_queued_reqs = options.max_num_queued_reqs;
  engine.observer = metrics;
  return engine;
}

HttpServerOptions ToHttpOptions(const ServerOptions& options, Metrics* metrics) {
  const auto milliseconds = [](double seconds) {
    return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
  };
  HttpServerOptions http;
  http.host = options.host;
  http.port = options.http_port;
  http.num_threads = options.http_num_threads;
  http.max_connections = options.http_max_connections;
  http.max_header_bytes = static_cast<uint32_t>(options.http_max_header_bytes);
  http.max_body_bytes = static_cast<uint64_t>(options.http_max_body_bytes);
  http.header_timeout = milliseconds(options.http_header_timeout);
  http.body_timeout = milliseconds(options.http_body_timeout);
  http.idle_timeout = milliseconds(options.http_idle_timeout);
  http.write_timeout = milliseconds(options.http_write_timeout);
  http.on_answered = [metrics](std::string_view path, int status) {
    metrics->OnHttpDone(path, status);
  };
  return http;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Application>> Application::Load(
    const ServerOptions& options, const BackendFactory& make_backend,
    std::function<void(const absl::Status&)> on_fatal) {
  auto app = std::unique_ptr<Application>(new Application(options));
  RETURN_IF_ERROR(app->StartEngines(make_backend));
  app->engine_->SetFatalErrorCallback(std::move(on_fatal));
  return app;
}

absl::Status Application::StartEngines(const BackendFactory& make_backend) {
  ASSIGN_OR_RETURN(defaults_, LoadGenerationDefaults(options_.model));
  ASSIGN_OR_RETURN(tokenizer_, LoadTokenizer(options_.model));
  // Backends keep their own copies: the file is unmapped at the end of this function.
  ASSIGN_OR_RETURN(
      const ModelWeights weights,
      LoadModelWeights(options_.model, options_.load_format, options_.seed.value_or(0)));
  config_ = weights.config;
  model_hash_ = weights.hash;
  metrics_ = std::make_unique<Metrics>(ServedName(options_));
  const EngineOptions engine_options = ToEngineOptions(options_, metrics_.get());
  std::vector<std::unique_ptr<Engine>> engines;
  for (const DeviceSpec& device : options_.devices) {
    ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, make_backend(device, weights, options_));
    engines.push_back(Engine::Create(std::move(backend), engine_options));
  }
  engine_ = engines.size() == 1 ? std::move(engines.front())
                                : std::make_unique<EngineRouter>(std::move(engines));
  metrics_->AttachEngine(engine_.get());
  FrontendOptions frontend_options;
  frontend_options.served_model_name = ServedName(options_);
  frontend_options.seed = options_.seed;
  frontend_options.max_prompt_tokens = options_.max_prompt_tokens;
  frontend_options.workers = QueueLoops(DefaultNumWorkers(), &worker_queues_);
  frontend_ =
      Frontend::Create(*engine_, config_, defaults_, tokenizer_.get(), std::move(frontend_options));
  LogModel(weights);
  return absl::OkStatus();
}

void Application::LogModel(const ModelWeights& weights) const {
  const BackendInfo& info = engine_->backend_info();
  LOG_INFO(
      "model '{}' from {}: {} parameters, {} layers, hidden size {}, {} heads of {}, vocabulary "
      "{}, {}, hash {}",
      frontend_->served_model_name(), options_.model, config_.NumParameters(), config_.num_layers,
      config_.hidden_size, config_.num_heads, config_.head_dim, config_.vocab_size,
      tokenizer_ != nullptr ? "with tokenizer" : "token ids only", weights.hash);
  const std::string replay =
      info.state_replay > 1 ? fmt::format(" (replay {})", info.state_replay) : "";
  LOG_INFO("device {}: dtype {}, state dtype {}{}, weights {:.1f} MiB", info.device,
           Name(info.dtype), Name(info.state_dtype), replay, MebiBytes(info.weight_bytes));
  LOG_INFO("state: {} bytes per sequence x {} slots = {:.1f} MiB", info.state_bytes_per_sequence,
           info.num_slots, MebiBytes(info.state_bytes_per_sequence * info.num_slots));
  const auto wanted = static_cast<int64_t>(options_.devices.size()) * options_.max_num_seqs;
  if (info.num_slots < wanted) {
    LOG_WARNING("only {} of {} slots fit (--max-num-seqs)", info.num_slots, wanted);
  }
  LOG_INFO(
      "limits: {} sequences, {} tokens per step, {} waiting requests per device, {} tokens per "
      "prompt",
      info.num_slots, info.max_batched_tokens, options_.max_num_queued_reqs,
      options_.max_prompt_tokens);
}

void Application::StartTraces() {
  if (options_.otlp_endpoint.empty()) return;
  SpanExporterOptions options;
  options.endpoint = *ParseHttpEndpoint(options_.otlp_endpoint);
  std::string& path = options.endpoint.path;
  path += path.ends_with('/') ? "v1/traces" : "/v1/traces";
  options.sample_ratio = options_.otlp_sample_ratio;
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  options.source = {ServerVersion(), host, frontend_->served_model_name()};
  options.on_result = [this](TraceResult result, uint64_t n) { metrics_->OnTraced(result, n); };
  LOG_INFO("traces go to http://{}{}", options.endpoint.authority, path);
  spans_ = std::make_unique<SpanExporter>(std::move(options));
}

absl::Status Application::Listen() {
  StartTraces();
  ServiceContext context;
  context.frontend = frontend_.get();
  context.metrics = metrics_.get();
  context.spans = spans_.get();
  context.model = DescribeModel(config_, model_hash_, engine_->backend_info(),
                                ToEngineOptions(options_, nullptr), *frontend_);
  context.stream_buffer_bytes = options_.stream_buffer_bytes;
  context.max_response_bytes = options_.grpc_max_message_bytes;
  context.worker_queues = worker_queues_;
  ASSIGN_OR_RETURN(context.api_keys,
                   LoadApiKeys("grpc-api-key", options_.grpc_api_key, options_.grpc_api_key_file));
  service_ = std::make_unique<InferenceService>(std::move(context));
  const KserveHealth health = {[this] { return !engine_->Stats().failed; },
                               [this] { return ready_ && !engine_->Stats().draining; }};
  kserve_ = std::make_unique<KserveService>(service_->context(), health);

  RETURN_IF_ERROR(StartHttp());
  ASSIGN_OR_RETURN(grpc_, GrpcServer::Start(*service_, options_, kserve_.get()));
  ready_ = true;
  // Parsed by scripts that start the server on port 0: keep the form.
  LOG_INFO("gRPC listening on {}{}", JoinHostPort(options_.host, grpc_->port()),
           options_.grpc_tls_cert.empty() ? "" : " (TLS)");
  LOG_INFO("HTTP listening on {}", JoinHostPort(options_.host, http_->port()));
  return absl::OkStatus();
}

absl::Status Application::StartHttp() {
  GatewayOptions gateway;
  gateway.generation = {frontend_.get(), metrics_.get(), spans_.get(), options_.stream_buffer_bytes,
                        options_.http_max_response_bytes};
  gateway.chat_max_tokens = defaults_.max_new_tokens.value_or(options_.chat_max_tokens);
  gateway.max_prompt_tokens = options_.max_prompt_tokens;
  gateway.response_store_bytes = options_.response_store_bytes;
  auto chat = ChatTemplates::Load(options_.model, options_.chat_template);
  // A template from the command line is meant; one of the checkpoint's must not keep the rest of
  // the API from being served.
  if (!chat.ok() && !options_.chat_template.empty()) return chat.status();
  if (chat.ok()) {
    chat_ = *std::move(chat);
    gateway.chat = chat_.get();
    LOG_INFO("chat template: {}", chat_->is_plain() ? "the plain one" : chat_->source());
  } else {
    gateway.chat_error = std::string(chat.status().message());
    LOG_WARNING("no chat: {}", gateway.chat_error);
  }
  gateway.started = static_cast<int64_t>(std::time(nullptr));
  gateway_ = std::make_unique<Gateway>(std::move(gateway));

  HttpGateOptions gate;
  ASSIGN_OR_RETURN(gate.api_keys,
                   LoadApiKeys("http-api-key", options_.http_api_key, options_.http_api_key_file));
  gate.cors_allow_origins = SplitList(options_.cors_allow_origin);
  HttpRouter router(std::move(gate));
  AddOpsRoutes({engine_.get(), metrics_.get(), &ready_, options_.liveness_timeout}, &router);
  AddPlaygroundRoute(&router);
  gateway_->AddRoutes(&router);
  ASSIGN_OR_RETURN(http_,
                   HttpServer::Start(ToHttpOptions(options_, metrics_.get()), std::move(router)));
  metrics_->AttachHttp(http_.get());
  return absl::OkStatus();
}

bool Application::Drain() {
  ready_ = false;
  http_->CloseAfterAnswers();
  grpc_->SetServing(false);
  const bool clean = engine_->Drain(std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(options_.shutdown_timeout)));
  const bool failed = engine_->Stats().failed;
  if (!clean && !failed) {
    LOG_WARNING("requests still ran after {} s and were ended (--shutdown-timeout)",
                options_.shutdown_timeout);
  }
  service_->WaitUntilQuiet(kQuietTime, kMaxLinger);
  const bool flushed = service_->WaitUntilIdle(kFlushTime);
  if (!http_->Drain(kFlushTime) || !flushed) {
    LOG_WARNING("some clients did not read their last messages and are cut off");
  }
  grpc_->Shutdown(kHangUpTime);
  if (spans_ != nullptr) spans_->Stop(kTraceFlushTime);
  return !failed;
}

}  // namespace hgrn2
