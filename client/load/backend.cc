#include "client/load/backend.h"

#include <fmt/format.h>
#include <hgrn2/v1/inference.grpc.pb.h>

#include <nlohmann/json.hpp>

#include "client/http_get.h"
#include "client/http_url.h"
#include "client/load/grpc_transport.h"
#include "client/load/http_transport.h"
#include "client/rpc_error.h"

namespace hgrn2::client {
namespace {

constexpr double kGetModelTimeoutS = 10;
// OpenAI's API does not tell the size of the vocabulary. Hardly any model has a smaller one, and
// special tokens are mostly the first few or the last.
constexpr int kHttpVocabSize = 1000;
constexpr int kHttpSpecialTokens = 16;

absl::Status AskGrpc(LoadOptions* options) {
  ConnectionOptions connection = options->connection;
  connection.timeout_s = kGetModelTimeoutS;
  auto channel = MakeChannel(connection, connection.target());
  if (!channel.ok()) return channel.status();
  grpc::ClientContext context;
  PrepareContext(connection, &context);
  v1::GetModelRequest request;
  request.set_model(options->base.model());
  v1::GetModelResponse model;
  const grpc::Status status = v1::Inference::NewStub(*channel)->GetModel(&context, request, &model);
  WorkloadOptions& workload = options->workload;
  if (!status.ok()) {
    if (workload.vocab_size > 0) return absl::OkStatus();
    return absl::UnavailableError("GetModel (or give --vocab-size): " + DescribeError(status));
  }
  options->model_name = model.name();
  if (workload.vocab_size == 0) workload.vocab_size = model.vocab_size();
  workload.avoid_token_ids.assign(model.eos_token_ids().begin(), model.eos_token_ids().end());
  if (model.has_bos_token_id()) workload.avoid_token_ids.push_back(model.bos_token_id());
  return absl::OkStatus();
}

// The first model that GET /v1/models names: servers want its name in every request.
void AskHttp(LoadOptions* options) {
  WorkloadOptions& workload = options->workload;
  if (workload.vocab_size == 0) {
    workload.vocab_size = kHttpVocabSize;
    for (int id = 0; id < kHttpSpecialTokens; ++id) workload.avoid_token_ids.push_back(id);
  }
  options->model_name = options->base.model();
  if (!options->model_name.empty()) return;
  std::string url = options->connection.target();
  while (!url.empty() && url.back() == '/') url.pop_back();
  if (url.size() < 3 || url.compare(url.size() - 3, 3, "/v1") != 0) url += "/v1";
  const absl::StatusOr<std::string> body = HttpGet(url + "/models", options->connection);
  const auto json = nlohmann::json::parse(body.ok() ? *body : "", nullptr, false);
  const auto id = nlohmann::json::json_pointer("/data/0/id");
  if (json.is_object() && json.contains(id) && json[id].is_string()) {
    options->model_name = json[id].get<std::string>();
    options->base.set_model(options->model_name);
  } else {  // some servers have one model and no list
    fmt::print(stderr, "hgrn2-client: load: {}: requests will name no model (--model)\n",
               body.ok() ? url + "/models names no model" : std::string(body.status().message()));
  }
}

}  // namespace

std::unique_ptr<Transport> MakeTransport(const LoadOptions& options) {
  if (options.backend == LoadBackend::kGrpc) {
    return std::make_unique<GrpcTransport>(options.connection, options.base);
  }
  OpenAiRequestOptions request;
  request.base = options.base;
  request.chat = options.backend == LoadBackend::kOpenAiChat;
  request.only_openai_fields = options.only_openai_fields;
  request.return_token_ids = options.turns != "1";
  return std::make_unique<HttpTransport>(options.connection, request, options.endpoint);
}

absl::Status AskModel(LoadOptions* options) {
  if (options->backend == LoadBackend::kGrpc) return AskGrpc(options);
  AskHttp(options);
  return absl::OkStatus();
}

}  // namespace hgrn2::client
