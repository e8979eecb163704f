// The whole server in this process, on the embedded model, with a device that can be made to fail.
#include "server/application.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <hgrn2/v1/inference.grpc.pb.h>

#include <atomic>
#include <future>
#include <string>
#include <utility>

#include "server/devices.h"
#include "tests/server/http_client.h"

namespace hgrn2 {
namespace {

using std::chrono::seconds;

// Passes everything on until it is broken.
class BreakableBackend : public Backend {
 public:
  BreakableBackend(std::unique_ptr<Backend> backend, const std::atomic<bool>& broken)
      : backend_(std::move(backend)), broken_(broken) {}
  const BackendInfo& info() const override { return backend_->info(); }
  absl::Status ConfigureSlot(int32_t slot, const SlotSampling& sampling) override {
    return backend_->ConfigureSlot(slot, sampling);
  }
  absl::Status Enqueue(const StepBatch& batch) override {
    return broken_ ? absl::InternalError("illegal memory access") : backend_->Enqueue(batch);
  }
  absl::Status Collect(StepResult* result) override { return backend_->Collect(result); }
  absl::Status CopyState(int32_t from, int32_t to) override {
    return backend_->CopyState(from, to);
  }
  absl::StatusOr<StateBlob> SaveState(int32_t slot) override { return backend_->SaveState(slot); }
  absl::Status RestoreState(int32_t slot, const StateBlob& blob) override {
    return backend_->RestoreState(slot, blob);
  }
  absl::StatusOr<std::vector<float>> ForwardLogits(const StepBatch& batch) override {
    return backend_->ForwardLogits(batch);
  }

 private:
  const std::unique_ptr<Backend> backend_;
  const std::atomic<bool>& broken_;
};

class ApplicationTest : public ::testing::Test {
 protected:
  void Start() {
    ServerOptions options;
    options.model = HGRN2_SOURCE_DIR "/models/hgrn2-gutenberg-12m";
    options.host = "127.0.0.1";
    options.grpc_port = options.http_port = 0;
    options.max_num_seqs = 4;
    options.devices = {{DeviceSpec::Kind::kCpu, 0}};
    const auto make_backend =
        [this](const DeviceSpec& device, const ModelWeights& weights,
               const ServerOptions& all) -> absl::StatusOr<std::unique_ptr<Backend>> {
      auto backend = MakeBackend(device, weights, all);
      if (!backend.ok()) return backend;
      return std::make_unique<BreakableBackend>(*std::move(backend), broken_);
    };
    auto application = Application::Load(
        options, make_backend, [this](const absl::Status& status) { fatal_.set_value(status); });
    ASSERT_TRUE(application.ok()) << application.status();
    application_ = *std::move(application);
    const absl::Status listening = application_->Listen();
    ASSERT_TRUE(listening.ok()) << listening;
    stub_ = v1::Inference::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(application_->grpc_port()),
                            grpc::InsecureChannelCredentials()));
  }
  static v1::GenerateRequest Request(int max_tokens) {
    v1::GenerateRequest request;
    request.add_prompts()->set_text("The whale");
    request.mutable_sampling()->set_max_tokens(max_tokens);
    request.mutable_sampling()->set_ignore_eos(true);
    return request;
  }

  std::atomic<bool> broken_{false};
  std::promise<absl::Status> fatal_;
  std::unique_ptr<Application> application_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(ApplicationTest, AFailedDeviceEndsRequestsClearlyAndTheServer) {
  Start();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request(1 << 20));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  broken_ = true;
  while (reader->Read(&message)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.error_code(), grpc::StatusCode::UNKNOWN);
  EXPECT_FALSE(status.error_message().empty());
  auto fatal = fatal_.get_future();
  ASSERT_EQ(fatal.wait_for(seconds(20)), std::future_status::ready);
  EXPECT_NE(std::string(fatal.get().message()).find("illegal memory access"), std::string::npos);
  EXPECT_EQ(testing::HttpGet(application_->http_port(), "/health").status, 503);
  EXPECT_EQ(testing::HttpGet(application_->http_port(), "/ready").status, 503);
  grpc::ClientContext next;
  v1::CompleteResponse response;
  EXPECT_EQ(stub_->Complete(&next, Request(1), &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(application_->Drain());
}

TEST_F(ApplicationTest, AnIdleServerDrainsAtOnce) {
  Start();
  grpc::ClientContext context;
  v1::CompleteResponse response;
  EXPECT_TRUE(stub_->Complete(&context, Request(3), &response).ok());
  const TimePoint start = Clock::Real().Now();
  EXPECT_TRUE(application_->Drain());
  // The client's connection is still open: that must not hold the server up.
  EXPECT_LT(Clock::Real().Now() - start, seconds(3));
}

}  // namespace
}  // namespace hgrn2
