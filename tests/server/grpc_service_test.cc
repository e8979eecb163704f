// The gRPC service over a fake frontend: a real server and client in this process.
#include <google/rpc/status.pb.h>
#include <grpc/health/v1/health.grpc.pb.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "server/grpc_server.h"
#include "tests/server/fake_frontend.h"
#include "tests/server/queue_workers.h"

namespace hgrn2 {
namespace {

using testing::FakeFrontend;
using testing::FakeRequest;
using HealthResponse = grpc::health::v1::HealthCheckResponse;
using std::chrono::milliseconds;
using std::chrono::seconds;

class GrpcServiceTest : public ::testing::Test {
 protected:
  void Start(int64_t stream_buffer_bytes = 4 << 20) {
    ServiceContext context;
    context.frontend = &frontend_;
    context.metrics = &metrics_;
    context.model.set_name("fake");
    context.stream_buffer_bytes = stream_buffer_bytes;
    context.max_response_bytes = 1 << 20;
    context.worker_queues = workers_.queues();
    service_ = std::make_unique<InferenceService>(std::move(context));
    ServerOptions options;
    options.host = "127.0.0.1";
    options.grpc_port = 0;
    auto server = GrpcServer::Start(*service_, options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    Connect();
  }
  // What the test calls from then on goes over a connection of its own.
  void Connect() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    // Windows that do not grow: what a client has not read yet stays 64 KiB, so that a large
    // message is in flight until the test reads it.
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    channel_ = grpc::CreateCustomChannel(JoinHostPort("127.0.0.1", server_->port()),
                                         grpc::InsecureChannelCredentials(), arguments);
    stub_ = v1::Inference::NewStub(channel_);
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(seconds(10));
  }

  // A stream under way and its request as the frontend got it.
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
    std::shared_ptr<FakeRequest> request;
    std::vector<v1::GenerateResponse> messages;

    // Reads to the end.
    grpc::Status Finish() {
      v1::GenerateResponse message;
      while (reader->Read(&message)) messages.push_back(message);
      return reader->Finish();
    }
    std::string Text() const {
      std::string text;
      for (const auto& message : messages) {
        for (const auto& choice : message.choices()) text += choice.text();
      }
      return text;
    }
  };
  std::unique_ptr<Call> Generate(milliseconds timeout = seconds(60)) {
    auto call = std::make_unique<Call>();
    call->context.set_deadline(std::chrono::system_clock::now() + timeout);
    v1::GenerateRequest request;
    request.set_request_id("r1");
    request.add_prompts()->set_text("hello");
    call->reader = stub_->Generate(&call->context, request);
    if (frontend_.refuse.ok()) {
      call->request = frontend_.Next();
      EXPECT_NE(call->request, nullptr);
    }
    return call;
  }
  HealthResponse::ServingStatus Health(const std::string& service) {
    auto stub = grpc::health::v1::Health::NewStub(channel_);
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    HealthResponse response;
    const grpc::Status status = stub->Check(&context, request, &response);
    return status.ok() ? response.status() : HealthResponse::UNKNOWN;
  }

  testing::QueueWorkers workers_{4};
  FakeFrontend frontend_;
  Metrics metrics_{"fake"};
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(GrpcServiceTest, StreamsDeltasThenUsage) {
  Start();
  auto call = Generate();
  EXPECT_EQ(std::get<std::string>(call->request->completion.prompts.at(0)), "hello");
  call->request->Delta("a");
  v1::GenerateResponse message;
  ASSERT_TRUE(call->reader->Read(&message));
  EXPECT_EQ(message.choices(0).text(), "a");
  EXPECT_EQ(message.request_id(), "r1");
  EXPECT_EQ(message.model(), "fake");
  EXPECT_FALSE(message.has_usage());
  call->request->Delta("b");
  call->request->Finish();
  EXPECT_TRUE(call->Finish().ok());
  EXPECT_EQ(call->Text(), "b");
  EXPECT_EQ(call->messages.back().usage().completion_tokens(), 4);
  EXPECT_EQ(call->messages.back().timing().decode(), 0.3);
}

TEST_F(GrpcServiceTest, AResponseIdIsMadeWhereNoneIsGiven) {
  Start();
  std::set<std::string> ids;
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    v1::GenerateRequest request;
    request.add_prompts()->set_text("hello");
    auto reader = stub_->Generate(&context, request);
    auto fake = frontend_.Next();
    EXPECT_EQ(fake->completion.request_id.size(), 16u);
    ids.insert(fake->completion.request_id);
    fake->Finish();
    v1::GenerateResponse message;
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_EQ(message.request_id(), fake->completion.request_id);
    EXPECT_TRUE(reader->Finish().ok());
  }
  EXPECT_EQ(ids.size(), 3u);
}

TEST_F(GrpcServiceTest, ARequestThatEndsInsideItsSubmission) {
  Start();
  frontend_.on_generate = [](FakeRequest& request) {
    request.Delta("all");
    request.Finish();
  };
  auto call = Generate();
  EXPECT_TRUE(call->Finish().ok());
  EXPECT_EQ(call->Text(), "all");
}

// 2 MiB fill the connection's window while nobody reads; what follows is merged.
TEST_F(GrpcServiceTest, DeltasMergeBehindTheWriteInFlight) {
  Start();
  auto call = Generate();
  std::string expected;
  for (int i = 0; i < 4; ++i) {
    call->request->Delta(std::string(512 << 10, 'x'));
    expected += std::string(512 << 10, 'x');
  }
  std::this_thread::sleep_for(milliseconds(100));
  for (int i = 0; i < 1000; ++i) {
    call->request->Delta(fmt::format("{} ", i));
    expected += fmt::format("{} ", i);
  }
  call->request->Finish();
  EXPECT_TRUE(call->Finish().ok());
  EXPECT_EQ(call->Text(), expected);
  // The first, what gathered behind it, and the end.
  EXPECT_LE(call->messages.size(), 3u);
  EXPECT_TRUE(call->messages.back().has_usage());
}

// So that no two workers write to one connection, and each has as many of them.
TEST_F(GrpcServiceTest, OneWorkerHasAllStreamsOfAConnection) {
  Start();
  std::map<size_t, int> connections_of;
  std::vector<std::unique_ptr<Call>> calls;
  for (int connection = 0; connection < 16; ++connection) {
    Connect();
    std::set<size_t> workers;
    for (int i = 0; i < 6; ++i) {
      calls.push_back(Generate());
      workers.insert(calls.back()->request->handler->worker().value());
    }
    EXPECT_EQ(workers.size(), 1u) << "connection " << connection;
    connections_of[*workers.begin()] += 1;
  }
  EXPECT_EQ(connections_of, (std::map<size_t, int>{{0, 4}, {1, 4}, {2, 4}, {3, 4}}));
  for (const auto& call : calls) call->request->Finish();
  for (const auto& call : calls) EXPECT_TRUE(call->Finish().ok());
}

TEST_F(GrpcServiceTest, MergedDeltasStayApartByChoice) {
  Start();
  auto call = Generate();
  call->request->Delta(std::string(512 << 10, 'x'), 7);
  std::this_thread::sleep_for(milliseconds(50));
  for (int i = 0; i < 10; ++i) {
    for (int choice = 0; choice < 3; ++choice) {
      call->request->Delta(fmt::format("{}{},", choice, i), choice);
    }
  }
  call->request->Finish();
  EXPECT_TRUE(call->Finish().ok());
  std::map<int, std::string> texts;
  for (const auto& message : call->messages) {
    std::set<int> seen;
    for (const auto& choice : message.choices()) {
      EXPECT_TRUE(seen.insert(choice.index()).second) << "a choice twice in one message";
      texts[choice.index()] += choice.text();
    }
  }
  EXPECT_EQ(texts[1], "10,11,12,13,14,15,16,17,18,19,");
  EXPECT_EQ(texts[2], "20,21,22,23,24,25,26,27,28,29,");
  EXPECT_EQ(texts[7].size(), 512u << 10);
}

TEST_F(GrpcServiceTest, ASlowReaderIsCancelledWithBoundedMemory) {
  Start(/*stream_buffer_bytes=*/64 << 10);
  auto call = Generate();
  int chunks = 0;
  // After 2000 with time for the thread that submits the call to hand over its control.
  while (!call->request->WaitCancelled(milliseconds(chunks < 2000 ? 0 : 1)) && chunks < 10000) {
    call->request->Delta(std::string(8 << 10, 'x'));
    ++chunks;
  }
  ASSERT_TRUE(call->request->WaitCancelled());
  // The window takes 64 KiB, and so does the queue behind it.
  EXPECT_LT(chunks, 10000);
  RecordProperty("chunks", chunks);
  for (int i = 0; i < 100; ++i) call->request->Delta("dropped");
  call->request->Finish(absl::CancelledError("by us"));
  const grpc::Status status = call->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("stream-buffer-bytes"), std::string::npos);
  EXPECT_EQ(call->Text().find("dropped"), std::string::npos);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.details_size(), 0) << "a retry would meet the same reader";
  EXPECT_NE(
      metrics_.Serialize().find("hgrn2_slow_reader_cancellations_total{model_name=\"fake\"} 1"),
      std::string::npos);
}

TEST_F(GrpcServiceTest, OneLargeDeltaIsNotASlowReader) {
  Start(/*stream_buffer_bytes=*/1 << 10);
  auto call = Generate();
  call->request->Delta(std::string(1 << 20, 'x'));
  EXPECT_FALSE(call->request->WaitCancelled(milliseconds(50)));
  call->request->Finish();
  EXPECT_TRUE(call->Finish().ok());
  EXPECT_EQ(call->Text().size(), 1u << 20);
}

TEST_F(GrpcServiceTest, ClientCancelReachesTheRequest) {
  Start();
  auto call = Generate();
  call->request->Delta("a");
  v1::GenerateResponse message;
  ASSERT_TRUE(call->reader->Read(&message));
  EXPECT_FALSE(call->request->WaitCancelled(milliseconds(0)));
  call->context.TryCancel();
  EXPECT_TRUE(call->request->WaitCancelled());
  call->request->Delta("into the void");
  call->request->Finish(absl::CancelledError("as asked"));
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GrpcServiceTest, AVanishedClientCancelsTheRequest) {
  Start();
  auto call = Generate();
  auto request = call->request;
  call->context.TryCancel();
  call->Finish();
  call.reset();
  EXPECT_TRUE(request->WaitCancelled());
  request->Finish(absl::CancelledError("gone"));
}

TEST_F(GrpcServiceTest, TheDeadlineIsTheRequestsAndNotACancellation) {
  Start();
  auto call = Generate(milliseconds(300));
  const Duration left = call->request->completion.deadline - Clock::Real().Now();
  EXPECT_LT(left, milliseconds(301));
  EXPECT_GT(left, milliseconds(0));
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // The engine ends it, and counts it as what it is.
  EXPECT_FALSE(call->request->WaitCancelled(milliseconds(100)));
  call->request->Finish(absl::DeadlineExceededError("too late"));
}

TEST_F(GrpcServiceTest, WithoutADeadlineThereIsNone) {
  Start();
  grpc::ClientContext context;
  v1::GenerateRequest request;
  request.add_prompts()->set_text("hello");
  auto reader = stub_->Generate(&context, request);
  auto fake = frontend_.Next();
  EXPECT_EQ(fake->completion.deadline, kInfiniteFuture);
  fake->Finish();
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(GrpcServiceTest, RefusalsCarryDetails) {
  Start();
  frontend_.refuse = InvalidArgument("top_p", "must be in (0, 1], got 2");
  auto call = Generate();
  grpc::Status status = call->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "top_p: must be in (0, 1], got 2");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.details_size(), 1);
  EXPECT_TRUE(call->messages.empty());
}

TEST_F(GrpcServiceTest, TextBeforeAnErrorIsDelivered) {
  Start();
  auto call = Generate();
  call->request->Delta("part");
  call->request->Finish(absl::UnavailableError("draining"));
  const grpc::Status status = call->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(call->Text(), "part");
  EXPECT_FALSE(call->messages.back().has_usage());
}

// Deltas, the end, the client's reading and its cancellation in every order, for the sanitizers.
TEST_F(GrpcServiceTest, CancellationsRaceWithDeltasAndTheEnd) {
  Start(/*stream_buffer_bytes=*/2 << 10);
  std::atomic<int> ended{0};
  for (int round = 0; round < 40; ++round) {
    auto call = Generate();
    std::thread worker([&ended, round, request = call->request] {
      for (int i = 0; i < 30; ++i) {
        if (request->WaitCancelled(milliseconds(0))) break;
        request->Delta(std::string(200, 'x'), i % 3);
      }
      request->Finish(round % 3 == 0 ? absl::CancelledError("x") : absl::OkStatus());
      ++ended;
    });
    std::thread canceller([&call, round] {
      std::this_thread::sleep_for(std::chrono::microseconds(round * 37));
      call->context.TryCancel();
    });
    call->Finish();
    worker.join();
    canceller.join();
  }
  EXPECT_EQ(ended, 40);
  EXPECT_TRUE(service_->WaitUntilIdle(seconds(10)));
}

TEST_F(GrpcServiceTest, CompleteGathersTheChoices) {
  Start();
  v1::CompleteResponse response;
  grpc::Status status;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::GenerateRequest request;
    request.add_prompts()->set_text("hello");
    status = stub_->Complete(&context, request, &response);
  });
  auto fake = frontend_.Next();
  fake->Delta("b1", 1);
  fake->Delta("a1", 0);
  fake->Delta("b2", 1);
  fake->Finish();
  client.join();
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.choices_size(), 2);
  EXPECT_EQ(response.choices(0).text(), "a1");
  EXPECT_EQ(response.choices(1).text(), "b1b2");
  EXPECT_EQ(response.choices(1).index(), 1);
  EXPECT_EQ(response.usage().prompt_tokens(), 3);
  EXPECT_EQ(response.request_id(), fake->completion.request_id);
}

TEST_F(GrpcServiceTest, CompleteRefusesAnAnswerThatIsTooLarge) {
  Start();
  grpc::Status status;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::GenerateRequest request;
    request.add_prompts()->set_text("hello");
    v1::CompleteResponse response;
    status = stub_->Complete(&context, request, &response);
  });
  auto fake = frontend_.Next();
  for (int i = 0; i < 20; ++i) fake->Delta(std::string(64 << 10, 'x'));
  EXPECT_TRUE(fake->WaitCancelled());
  fake->Finish(absl::CancelledError("by us"));
  client.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcServiceTest, CompleteIsCancelledWithItsClient) {
  Start();
  grpc::ClientContext context;
  std::thread client([&] {
    v1::GenerateRequest request;
    v1::CompleteResponse response;
    EXPECT_EQ(stub_->Complete(&context, request, &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  auto fake = frontend_.Next();
  context.TryCancel();
  EXPECT_TRUE(fake->WaitCancelled());
  fake->Finish(absl::CancelledError("as asked"));
  client.join();
}

TEST_F(GrpcServiceTest, Score) {
  Start();
  v1::ScoreResponse response;
  grpc::Status status;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::ScoreRequest request;
    request.add_continuations()->set_text("x");
    status = stub_->Score(&context, request, &response);
  });
  auto fake = frontend_.Next();
  ContinuationResult result;
  result.sum_logprob = -2.5;
  result.is_greedy = false;
  result.tokens.resize(2);
  fake->score_handler->OnDone(absl::OkStatus(), {result}, {5, 2, 0});
  fake->score_handler.reset();
  client.join();
  ASSERT_TRUE(status.ok());
  ASSERT_EQ(response.scores_size(), 1);
  EXPECT_EQ(response.scores(0).sum_logprob(), -2.5);
  EXPECT_EQ(response.scores(0).tokens_size(), 2);
  EXPECT_EQ(response.usage().prompt_tokens(), 5);
}

TEST_F(GrpcServiceTest, CallsWithoutTheEngine) {
  Start();
  {
    grpc::ClientContext context;
    v1::GetModelResponse response;
    EXPECT_TRUE(stub_->GetModel(&context, {}, &response).ok());
    EXPECT_EQ(response.name(), "fake");
  }
  {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model("other");
    v1::GetModelResponse response;
    EXPECT_EQ(stub_->GetModel(&context, request, &response).error_code(),
              grpc::StatusCode::NOT_FOUND);
  }
  {
    grpc::ClientContext context;
    v1::DetokenizeRequest request;
    request.add_token_ids(1);
    v1::DetokenizeResponse response;
    EXPECT_TRUE(stub_->Detokenize(&context, request, &response).ok());
    EXPECT_EQ(response.text(), "1 ids");
  }
  {
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    EXPECT_EQ(stub_->Tokenize(&context, {}, &response).error_code(),
              grpc::StatusCode::FAILED_PRECONDITION);
  }
}

TEST_F(GrpcServiceTest, RpcsAreCountedByMethodAndCode) {
  Start();
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_model("other");
  v1::GetModelResponse response;
  stub_->GetModel(&context, request, &response);
  EXPECT_NE(metrics_.Serialize().find("hgrn2_grpc_requests_total{model_name=\"fake\",method="
                                      "\"GetModel\",code=\"NOT_FOUND\"} 1"),
            std::string::npos)
      << metrics_.Serialize();
}

TEST_F(GrpcServiceTest, HealthOfTheServerAndTheService) {
  Start();
  for (const char* name : {"", "hgrn2.v1.Inference"}) {
    EXPECT_EQ(Health(name), HealthResponse::SERVING) << name;
  }
  EXPECT_EQ(Health("no.such.Service"), HealthResponse::UNKNOWN);  // NOT_FOUND
  server_->SetServing(false);
  for (const char* name : {"", "hgrn2.v1.Inference"}) {
    EXPECT_EQ(Health(name), HealthResponse::NOT_SERVING) << name;
  }
}

TEST_F(GrpcServiceTest, APortInUseIsAnError) {
  Start();
  ServerOptions options;
  options.host = "127.0.0.1";
  options.grpc_port = server_->port();
  InferenceService service(service_->context());
  auto second = GrpcServer::Start(service, options);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find(std::to_string(server_->port())),
            absl::string_view::npos);
}

TEST_F(GrpcServiceTest, ShutdownEndsStreamsThatDoNotEnd) {
  Start();
  auto call = Generate();
  std::thread worker([request = call->request] {
    EXPECT_TRUE(request->WaitCancelled());
    request->Finish(absl::CancelledError("shut down"));
  });
  server_->Shutdown(milliseconds(50));
  worker.join();
  EXPECT_FALSE(call->Finish().ok());
}

TEST(JoinHostPortTest, IPv6NeedsBrackets) {
  EXPECT_EQ(JoinHostPort("0.0.0.0", 1), "0.0.0.0:1");
  EXPECT_EQ(JoinHostPort("::", 1), "[::]:1");
  EXPECT_EQ(JoinHostPort("[::1]", 1), "[::1]:1");
  EXPECT_EQ(JoinHostPort("name", 1), "name:1");
}

}  // namespace
}  // namespace hgrn2
