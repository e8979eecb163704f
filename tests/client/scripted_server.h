// A real gRPC server on a loopback port whose answers, and their times, a test writes.
#pragma once

#include <grpc/health/v1/health.grpc.pb.h>
#include <hgrn2/v1/inference.grpc.pb.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace hgrn2::client {

using SteadyTime = std::chrono::steady_clock::time_point;

// How one request is answered.
struct Script {
  std::vector<double> token_at_s;  // when each token is written, seconds after the call arrived
  grpc::Status status;
  int http_status = 0;           // HTTP only: refuse with this, before any token
  double queue_s = 0;            // reported in Timing
  bool wait_for_cancel = false;  // after the tokens, hold the stream until the client is gone
};

struct Served {
  SteadyTime arrived;
  std::vector<SteadyTime> written;  // of each token
  bool cancelled = false;           // seen by the server
};

class ScriptedServer : public v1::Inference::Service {
 public:
  using Scripter = std::function<Script(const v1::GenerateRequest&, SteadyTime arrived)>;

  explicit ScriptedServer(Scripter scripter);
  ~ScriptedServer() override;

  const std::string& address() const { return address_; }
  // By request_id.
  std::map<std::string, Served> served();
  std::vector<v1::GenerateRequest> requests();
  std::vector<std::multimap<std::string, std::string>> metadata();
  void Stop();

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status Complete(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        v1::CompleteResponse* response) override;
  // Scores of token t: -t / 1000. Fails the first `score_refusals` calls with RESOURCE_EXHAUSTED.
  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override;
  // Token ids are the text's bytes.
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext* context, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override;

  std::atomic<int> score_refusals{0};
  std::atomic<int> score_in_flight{0};
  std::atomic<int> score_peak{0};

 private:
  class Health;

  const Scripter scripter_;
  std::unique_ptr<Health> health_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::mutex mu_;
  std::map<std::string, Served> served_;
  std::vector<v1::GenerateRequest> requests_;
  std::vector<std::multimap<std::string, std::string>> metadata_;
};

// A status as the real server makes it: field violation and retry delay in google.rpc details.
grpc::Status DetailedStatus(grpc::StatusCode code, const std::string& message,
                            const std::string& field, double retry_s);

}  // namespace hgrn2::client
