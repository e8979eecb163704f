#include "tests/client/scripted_server.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <thread>

namespace hgrn2::client {
namespace {

SteadyTime After(SteadyTime start, double seconds) {
  return start + std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

}  // namespace

class ScriptedServer::Health : public grpc::health::v1::Health::Service {
 public:
  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override {
    if (request->service() == "unknown") return {grpc::StatusCode::NOT_FOUND, "no such service"};
    response->set_status(request->service() == "down"
                             ? grpc::health::v1::HealthCheckResponse::NOT_SERVING
                             : grpc::health::v1::HealthCheckResponse::SERVING);
    return grpc::Status::OK;
  }
};

ScriptedServer::ScriptedServer(Scripter scripter)
    : scripter_(std::move(scripter)), health_(std::make_unique<Health>()) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  builder.RegisterService(health_.get());
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
}

ScriptedServer::~ScriptedServer() { Stop(); }

void ScriptedServer::Stop() {
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  server_->Wait();
}

std::map<std::string, Served> ScriptedServer::served() {
  std::lock_guard lock(mu_);
  return served_;
}

std::vector<v1::GenerateRequest> ScriptedServer::requests() {
  std::lock_guard lock(mu_);
  return requests_;
}

std::vector<std::multimap<std::string, std::string>> ScriptedServer::metadata() {
  std::lock_guard lock(mu_);
  return metadata_;
}

grpc::Status ScriptedServer::Generate(grpc::ServerContext* context,
                                      const v1::GenerateRequest* request,
                                      grpc::ServerWriter<v1::GenerateResponse>* writer) {
  Served served;
  served.arrived = std::chrono::steady_clock::now();
  const Script script = scripter_(*request, served.arrived);
  v1::GenerateResponse response;
  for (size_t i = 0; i < script.token_at_s.size() && !context->IsCancelled(); ++i) {
    response.Clear();
    auto* choice = response.add_choices();
    choice->set_text(i == 0 ? "Hello" : " w" + std::to_string(i));
    choice->add_token_ids(static_cast<int>(100 + i));
    if (i + 1 == script.token_at_s.size()) {
      choice->set_finish_reason(v1::FINISH_REASON_LENGTH);
      response.mutable_usage()->set_prompt_tokens(request->prompts(0).tokens().ids_size());
      response.mutable_usage()->set_completion_tokens(static_cast<int>(i) + 1);
      response.mutable_timing()->set_queue(script.queue_s);
    }
    std::this_thread::sleep_until(After(served.arrived, script.token_at_s[i]));
    served.written.push_back(std::chrono::steady_clock::now());
    writer->Write(response);
  }
  while (script.wait_for_cancel && !context->IsCancelled()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  served.cancelled = context->IsCancelled();
  std::lock_guard lock(mu_);
  served_[request->request_id()] = std::move(served);
  requests_.push_back(*request);
  auto& metadata = metadata_.emplace_back();
  for (const auto& [key, value] : context->client_metadata()) {
    metadata.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
  }
  return script.status;
}

grpc::Status ScriptedServer::Complete(grpc::ServerContext*, const v1::GenerateRequest* request,
                                      v1::CompleteResponse* response) {
  std::lock_guard lock(mu_);
  requests_.push_back(*request);
  response->set_model("scripted");
  const int n = request->sampling().has_n() ? request->sampling().n() : 1;
  for (int i = 0; i < n; ++i) {
    auto* choice = response->add_choices();
    choice->set_index(i);
    choice->set_text("choice " + std::to_string(i));
    choice->set_finish_reason(v1::FINISH_REASON_STOP);
  }
  return grpc::Status::OK;
}

grpc::Status ScriptedServer::Score(grpc::ServerContext*, const v1::ScoreRequest* request,
                                   v1::ScoreResponse* response) {
  if (score_refusals.fetch_sub(1) > 0) {
    return DetailedStatus(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue full", "", 0.01);
  }
  const int in_flight = ++score_in_flight;
  for (int peak = score_peak;
       in_flight > peak && !score_peak.compare_exchange_weak(peak, in_flight);) {
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(in_flight % 7));  // answers overtake
  response->set_request_id(request->request_id());
  for (const auto& continuation : request->continuations()) {
    auto* score = response->add_scores();
    std::vector<int> ids(continuation.tokens().ids().begin(), continuation.tokens().ids().end());
    for (const unsigned char c : continuation.text()) ids.push_back(c);
    for (int id : ids) {
      auto* token = score->add_tokens();
      token->set_token_id(id);
      token->set_logprob(static_cast<float>(-id) / 1000);
      score->set_sum_logprob(score->sum_logprob() - id / 1000.0);
    }
  }
  --score_in_flight;
  return grpc::Status::OK;
}

grpc::Status ScriptedServer::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                      v1::TokenizeResponse* response) {
  if (!request->has_add_special_tokens() || request->add_special_tokens()) {
    response->add_token_ids(0);
    response->add_tokens("<s>");
  }
  for (const unsigned char c : request->text()) {
    response->add_token_ids(c);
    response->add_tokens(std::string(1, static_cast<char>(c)));
  }
  return grpc::Status::OK;
}

grpc::Status ScriptedServer::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                        v1::DetokenizeResponse* response) {
  for (int id : request->token_ids()) {
    if (id != 0)
      response->mutable_text()->push_back(static_cast<char>(id));
    else if (!request->skip_special_tokens())
      response->mutable_text()->append("<s>");
  }
  return grpc::Status::OK;
}

grpc::Status ScriptedServer::GetModel(grpc::ServerContext*, const v1::GetModelRequest* request,
                                      v1::GetModelResponse* response) {
  if (request->model() == "other") {
    return DetailedStatus(grpc::StatusCode::NOT_FOUND, "model 'other' is not served", "model", 0);
  }
  response->set_name("scripted");
  response->set_vocab_size(1000);
  response->add_eos_token_ids(7);
  return grpc::Status::OK;
}

grpc::Status DetailedStatus(grpc::StatusCode code, const std::string& message,
                            const std::string& field, double retry_s) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  if (!field.empty()) {
    google::rpc::BadRequest bad_request;
    auto* violation = bad_request.add_field_violations();
    violation->set_field(field);
    violation->set_description(message);
    status.add_details()->PackFrom(bad_request);
  }
  if (retry_s > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(static_cast<int64_t>(retry_s));
    retry.mutable_retry_delay()->set_nanos(
        static_cast<int32_t>((retry_s - static_cast<double>(static_cast<int64_t>(retry_s))) * 1e9));
    status.add_details()->PackFrom(retry);
  }
  return {code, message, status.SerializeAsString()};
}

}  // namespace hgrn2::client
