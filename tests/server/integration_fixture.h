// Fixture of the tests that run the real server binary on the embedded model, over real sockets.
#pragma once

#include <fmt/format.h>
#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpc/health/v1/health.grpc.pb.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <hgrn2/v1/inference.grpc.pb.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/server/http_client.h"
#include "tests/server/server_process.h"

namespace hgrn2::testing {

using std::chrono::milliseconds;
using std::chrono::seconds;
using HealthResponse = grpc::health::v1::HealthCheckResponse;

inline constexpr int kForever = 1 << 20;  // max_tokens that no test waits for

inline v1::GenerateRequest Prompt(const std::string& text, int max_tokens) {
  v1::GenerateRequest request;
  request.add_prompts()->set_text(text);
  request.mutable_sampling()->set_max_tokens(max_tokens);
  request.mutable_sampling()->set_ignore_eos(true);
  request.mutable_sampling()->set_seed(1);
  return request;
}

template <typename Detail>
bool FindDetail(const grpc::Status& status, Detail* out) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return false;
  for (const auto& detail : details.details()) {
    if (detail.UnpackTo(out)) return true;
  }
  return false;
}

inline bool HasRetryInfo(const grpc::Status& status) {
  google::rpc::RetryInfo info;
  return FindDetail(status, &info) && info.retry_delay().seconds() >= 1;
}

// What a stream came to.
struct Outcome {
  grpc::Status status;
  std::string text;
  int num_tokens = 0;
  int num_messages = 0;
  v1::Usage usage;
};

class IntegrationTest : public ::testing::Test {
 protected:
  void Start(std::vector<std::string> flags = {}) {
    server_ = std::make_unique<ServerProcess>(ServerProcess::WithModel(std::move(flags)));
    ASSERT_TRUE(server_->WaitUntilListening()) << server_->log();
    channel_ = Connect();
    stub_ = v1::Inference::NewStub(channel_);
  }
  // Whatever a test did, the server must be able to leave in order: nothing hangs, and no sanitizer
  // has anything to say (their reports change the exit status).
  void TearDown() override {
    if (server_ == nullptr) return;
    if (!server_->WaitForExit(milliseconds(0)).has_value()) {
      server_->Signal(SIGTERM);
      EXPECT_EQ(server_->WaitForExit(), 0);
    }
    const std::string log = server_->log();
    for (const char* report : {"Sanitizer", "runtime error:", "check failed:"}) {
      EXPECT_EQ(log.find(report), std::string::npos);
    }
    if (HasFailure() || std::getenv("HGRN2_TEST_LOG") != nullptr) {
      std::cerr << "server log, its end:\n"
                << log.substr(log.size() - std::min<size_t>(log.size(), 4000));
    }
  }
  // A connection of its own.
  std::shared_ptr<grpc::Channel> Connect(grpc::ChannelArguments arguments = {}) {
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server_->grpc_address(), grpc::InsecureChannelCredentials(),
                                     arguments);
  }
  static void ReadToEnd(grpc::ClientReader<v1::GenerateResponse>& reader, Outcome* outcome) {
    v1::GenerateResponse message;
    while (reader.Read(&message)) {
      ++outcome->num_messages;
      for (const auto& choice : message.choices()) {
        outcome->text += choice.text();
        outcome->num_tokens += choice.token_ids_size();
      }
      if (message.has_usage()) outcome->usage = message.usage();
    }
    outcome->status = reader.Finish();
  }
  Outcome Generate(const v1::GenerateRequest& request, milliseconds timeout = seconds(300)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    Outcome outcome;
    ReadToEnd(*stub_->Generate(&context, request), &outcome);
    return outcome;
  }
  // A stream that has sent its first token.
  struct Running {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
    Outcome Finish() {
      Outcome outcome;
      ReadToEnd(*reader, &outcome);
      return outcome;
    }
  };
  std::unique_ptr<Running> Begin(const v1::GenerateRequest& request) {
    auto running = std::make_unique<Running>();
    running->reader = stub_->Generate(&running->context, request);
    v1::GenerateResponse message;
    EXPECT_TRUE(running->reader->Read(&message));
    return running;
  }
  // The value of a series by its exact name and labels (without model_name), NAN if it is missing.
  double Metric(const std::string& name, const std::string& labels = "") {
    const std::string text = HttpGet(server_->http_port(), "/metrics").body;
    const std::string key = fmt::format("\n{}{{model_name=\"hgrn2-gutenberg-12m\"{}{}}} ", name,
                                        labels.empty() ? "" : ",", labels);
    const size_t at = text.find(key);
    return at == std::string::npos ? NAN : std::strtod(text.c_str() + at + key.size(), nullptr);
  }
  double SlotsUsed() { return Metric("hgrn2_state_slots", "tier=\"device\",state=\"used\""); }
  static bool Eventually(const std::function<bool()>& condition,
                         milliseconds timeout = seconds(20)) {
    const auto give_up = std::chrono::steady_clock::now() + timeout;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }
  HealthResponse::ServingStatus Health(const std::string& service) {
    auto stub = grpc::health::v1::Health::NewStub(channel_);
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    HealthResponse response;
    return stub->Check(&context, request, &response).ok() ? response.status()
                                                          : HealthResponse::UNKNOWN;
  }

  std::unique_ptr<ServerProcess> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace hgrn2::testing
