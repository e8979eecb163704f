// The Open Inference Protocol over a fake frontend: a real server and client in this process.
#include <grpc/health/v1/health.grpc.pb.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <kserve/open_inference.grpc.pb.h>

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "server/grpc_server.h"
#include "server/kserve/tensor.h"
#include "tests/server/fake_frontend.h"
#include "tests/server/queue_workers.h"

namespace hgrn2 {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;
using std::chrono::seconds;
using testing::FakeFrontend;
using testing::FakeRequest;
using Stream = grpc::ClientReaderWriter<ModelInferRequest, ModelStreamInferResponse>;

ModelInferRequest::InferInputTensor* AddInput(const char* name, const char* datatype,
                                              std::vector<int64_t> shape,
                                              ModelInferRequest* request) {
  auto* const input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  input->mutable_shape()->Assign(shape.begin(), shape.end());
  return input;
}

ModelInferRequest TextRequest(const std::vector<std::string>& texts, const std::string& id = "") {
  ModelInferRequest request;
  request.set_model_name("fake");
  request.set_id(id);
  auto* const input =
      AddInput("text_input", "BYTES", {static_cast<int64_t>(texts.size())}, &request);
  for (const std::string& text : texts) input->mutable_contents()->add_bytes_contents(text);
  return request;
}

std::string Raw(const std::vector<std::string>& texts) {
  std::string raw;
  for (const std::string& text : texts) AppendRawBytes(text, &raw);
  return raw;
}

class KserveTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(4 << 20); }
  void Start(int64_t stream_buffer_bytes) {
    TearDown();
    ServiceContext context;
    context.frontend = &frontend_;
    context.metrics = &metrics_;
    context.model.set_name("fake");
    context.stream_buffer_bytes = stream_buffer_bytes;
    context.max_response_bytes = 1 << 20;
    context.worker_queues = workers_.queues();
    context.api_keys = keys_;
    service_ = std::make_unique<InferenceService>(std::move(context));
    kserve_ = std::make_unique<KserveService>(
        service_->context(), KserveHealth{[] { return true; }, [this] { return ready_; }});
    ServerOptions options;
    options.host = "127.0.0.1";
    options.grpc_port = 0;
    auto server = GrpcServer::Start(*service_, options, kserve_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ = grpc::CreateCustomChannel(JoinHostPort("127.0.0.1", server_->port()),
                                         grpc::InsecureChannelCredentials(), arguments);
    stub_ = inference::GRPCInferenceService::NewStub(channel_);
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(seconds(10));
    server_ = nullptr;
  }

  static void SetDeadline(grpc::ClientContext* context) {
    context->set_deadline(std::chrono::system_clock::now() + seconds(60));
  }
  // Refused before it reaches the frontend.
  std::string Refusal(const ModelInferRequest& request,
                      grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT) {
    grpc::ClientContext context;
    SetDeadline(&context);
    ModelInferResponse response;
    const grpc::Status status = stub_->ModelInfer(&context, request, &response);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    return status.error_message();
  }
  // ModelInfer, answered by `run` as soon as the frontend has the request.
  grpc::Status Infer(const ModelInferRequest& request, std::function<void(FakeRequest&)> run,
                     ModelInferResponse* response) {
    grpc::ClientContext context;
    SetDeadline(&context);
    frontend_.on_generate = std::move(run);
    const grpc::Status status = stub_->ModelInfer(&context, request, response);
    frontend_.on_generate = nullptr;
    return status;
  }
  // The parameters of `request` as the frontend gets them.
  SamplingRequest SamplingOf(const ModelInferRequest& request) {
    SamplingRequest sampling;
    ModelInferResponse response;
    const grpc::Status status = Infer(
        request,
        [&](FakeRequest& fake) {
          sampling = fake.completion.sampling;
          fake.Finish();
        },
        &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return sampling;
  }

  testing::QueueWorkers workers_{1};
  FakeFrontend frontend_;
  Metrics metrics_{"fake"};
  bool ready_ = true;
  std::vector<std::string> keys_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<KserveService> kserve_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
};

void End(FakeRequest& fake, int32_t index, FinishReason reason = FinishReason::kStop) {
  ChoiceDelta delta;
  delta.index = index;
  delta.finish_reason = reason;
  fake.handler->OnDelta(std::move(delta));
}

TEST_F(KserveTest, BatchWithContents) {
  ModelInferResponse response;
  const grpc::Status status = Infer(
      TextRequest({"one", "two"}, "id-1"),
      [](FakeRequest& fake) {
        EXPECT_EQ(fake.completion.prompts.size(), 2u);
        EXPECT_EQ(std::get<std::string>(fake.completion.prompts[1]), "two");
        EXPECT_EQ(fake.completion.request_id, "id-1");
        fake.Delta("a", 0);
        fake.Delta("B", 1);
        fake.Delta("b", 0);
        End(fake, 0);
        End(fake, 1, FinishReason::kLength);
        fake.Finish();
      },
      &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.id(), "id-1");
  EXPECT_EQ(response.model_name(), "fake");
  EXPECT_EQ(response.model_version(), "1");
  ASSERT_EQ(response.outputs_size(), 2);
  const auto& text = response.outputs(0);
  EXPECT_EQ(text.name(), "text_output");
  EXPECT_EQ(text.datatype(), "BYTES");
  ASSERT_EQ(text.shape_size(), 1);
  EXPECT_EQ(text.shape(0), 2);
  EXPECT_EQ(text.contents().bytes_contents(0), "ab");
  EXPECT_EQ(text.contents().bytes_contents(1), "B");
  EXPECT_EQ(response.outputs(1).contents().bytes_contents(0), "stop");
  EXPECT_EQ(response.outputs(1).contents().bytes_contents(1), "length");
  EXPECT_TRUE(response.raw_output_contents().empty());
  EXPECT_EQ(response.parameters().at("completion_tokens").int64_param(), 4);
}

TEST_F(KserveTest, RawContentsAreAnsweredRaw) {
  ModelInferRequest request;
  request.set_model_name("fake");
  AddInput("text_input", "BYTES", {2, 1}, &request);
  request.add_raw_input_contents(Raw({"x", ""}));
  request.add_outputs()->set_name("text_output");
  ModelInferResponse response;
  const grpc::Status status = Infer(
      request,
      [](FakeRequest& fake) {
        EXPECT_EQ(std::get<std::string>(fake.completion.prompts[0]), "x");
        fake.Delta("out", 1);
        fake.Finish();
      },
      &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).shape_size(), 2);
  EXPECT_FALSE(response.outputs(0).has_contents());
  ASSERT_EQ(response.raw_output_contents_size(), 1);
  EXPECT_EQ(response.raw_output_contents(0), Raw({"", "out"}));
}

TEST_F(KserveTest, ParametersAndTensorsMeanTheSame) {
  ModelInferRequest by_parameter = TextRequest({"x"});
  auto& parameters = *by_parameter.mutable_parameters();
  parameters["max_tokens"].set_int64_param(7);
  parameters["temperature"].set_double_param(0.5);
  parameters["top_k"].set_string_param("3");
  parameters["seed"].set_uint64_param(~uint64_t{0});
  parameters["stop"].set_string_param("[\"a\", \"b\"]");
  parameters["ignore_eos"].set_bool_param(true);
  ModelInferRequest by_tensor;
  by_tensor.set_model_name("fake");
  const auto add = [&](const char* name, const char* type, int64_t size, std::string raw) {
    AddInput(name, type, {size}, &by_tensor);
    by_tensor.add_raw_input_contents(std::move(raw));
  };
  add("text_input", "BYTES", 1, Raw({"x"}));
  add("max_tokens", "INT32", 1, std::string("\7\0\0\0", 4));
  add("temperature", "FP32", 1, std::string("\0\0\0\x3f", 4));
  add("top_k", "INT64", 1, std::string("\3\0\0\0\0\0\0\0", 8));
  add("seed", "UINT64", 1, std::string(8, '\xff'));
  add("stop", "BYTES", 2, Raw({"a", "b"}));
  add("ignore_eos", "BOOL", 1, std::string("\1", 1));
  ModelInferRequest by_json = TextRequest({"x"});
  AddInput("sampling_parameters", "BYTES", {1}, &by_json)
      ->mutable_contents()
      ->add_bytes_contents(
          R"({"max_tokens": 7, "temperature": "0.5", "top_k": 3, "stop": ["a", "b"],
                               "seed": 18446744073709551615, "ignore_eos": true, "top_p": null})");
  for (const ModelInferRequest& request : {by_parameter, by_tensor, by_json}) {
    const SamplingRequest sampling = SamplingOf(request);
    EXPECT_EQ(sampling.max_tokens, 7);
    EXPECT_EQ(sampling.temperature, 0.5f);
    EXPECT_EQ(sampling.top_k, 3);
    EXPECT_EQ(sampling.seed, ~uint64_t{0});
    EXPECT_EQ(sampling.stop, (std::vector<std::string>{"a", "b"}));
    EXPECT_TRUE(sampling.ignore_eos);
    EXPECT_FALSE(sampling.top_p.has_value());
  }
}

TEST_F(KserveTest, ParameterTensorsMayRepeatForTheBatch) {
  ModelInferRequest request = TextRequest({"x", "y"});
  auto* const tokens = AddInput("max_tokens", "INT32", {2, 1}, &request)->mutable_contents();
  tokens->add_int_contents(5);
  tokens->add_int_contents(5);
  EXPECT_EQ(SamplingOf(request).max_tokens, 5);
  tokens->set_int_contents(1, 6);
  EXPECT_EQ(Refusal(request), "max_tokens: must be the same for the whole batch");
}

TEST_F(KserveTest, MalformedTensorsAreRefused) {
  const auto refuse = [&](const std::function<void(ModelInferRequest*)>& spoil) {
    ModelInferRequest request = TextRequest({"x"});
    spoil(&request);
    return Refusal(request);
  };
  const auto input = [](ModelInferRequest* r) { return r->mutable_inputs(0); };
  EXPECT_EQ(refuse([](auto* r) { r->clear_inputs(); }), "text_input: this input is missing");
  EXPECT_EQ(refuse([&](auto* r) { input(r)->set_datatype("FP16"); }),
            "text_input: the datatype 'FP16' is not supported");
  EXPECT_EQ(refuse([&](auto* r) { input(r)->set_datatype("INT32"); }),
            "text_input: 0 elements in the contents for INT32, the shape needs 1");
  EXPECT_EQ(refuse([&](auto* r) { input(r)->set_shape(0, 2); }),
            "text_input: 1 elements in the contents for BYTES, the shape needs 2");
  EXPECT_EQ(refuse([&](auto* r) { input(r)->set_shape(0, 0); }),
            "text_input: 1 elements in the contents for BYTES, the shape needs 0");
  const std::string bad_shape =
      "text_input: a shape must have at most 1048576 elements and no negative size";
  EXPECT_EQ(refuse([&](auto* r) { input(r)->set_shape(0, -1); }), bad_shape);
  EXPECT_EQ(refuse([&](auto* r) { input(r)->set_shape(0, int64_t{1} << 62); }), bad_shape);
  EXPECT_EQ(refuse([&](auto* r) {
              input(r)->add_shape(1);
              input(r)->add_shape(1);
            }),
            "text_input: the shape must be [batch] or [batch, 1]");
  EXPECT_EQ(refuse([&](auto* r) { input(r)->mutable_contents()->set_bytes_contents(0, "\xff"); }),
            "text_input: element 0 is not valid UTF-8");
  EXPECT_EQ(refuse([&](auto* r) { *r->add_inputs() = r->inputs(0); }), "text_input: occurs twice");
  EXPECT_EQ(refuse([&](auto* r) {
              AddInput("image", "BYTES", {1}, r)->mutable_contents()->add_bytes_contents("x");
            }),
            "image: there is no parameter or tensor of this name");
  EXPECT_EQ(refuse([&](auto* r) { r->add_outputs()->set_name("logits"); }),
            "outputs: there is no output 'logits', only text_output and finish_reason");
  EXPECT_EQ(refuse([&](auto* r) { r->set_id(std::string(300, 'x')); }),
            "id: at most 256 bytes, got 300");
}

TEST_F(KserveTest, MalformedRawContentsAreRefused) {
  const auto refuse = [&](std::vector<std::string> raw) {
    ModelInferRequest request;
    request.set_model_name("fake");
    AddInput("text_input", "BYTES", {1}, &request);
    for (std::string& bytes : raw) request.add_raw_input_contents(std::move(bytes));
    return Refusal(request);
  };
  EXPECT_EQ(refuse({"ab"}), "text_input: raw contents end within element 0");
  EXPECT_EQ(refuse({std::string("\5\0\0\0ab", 6)}),
            "text_input: element 0 has 5 bytes, but only 2 follow");
  EXPECT_EQ(refuse({std::string("\xff\xff\xff\xff", 4)}),
            "text_input: element 0 has 4294967295 bytes, but only 0 follow");
  EXPECT_EQ(refuse({Raw({"a", "b"})}), "text_input: 5 bytes follow the 1 elements of its shape");
  EXPECT_EQ(refuse({Raw({"a"}), ""}), "raw_input_contents: 2 entries for 1 inputs");
  ModelInferRequest both = TextRequest({"x"});
  both.add_raw_input_contents(Raw({"x"}));
  EXPECT_EQ(Refusal(both), "text_input: has contents, but the request has raw_input_contents");
}

TEST_F(KserveTest, BadParametersAreRefused) {
  const auto refuse = [&](const char* name,
                          const std::function<void(inference::InferParameter*)>& set) {
    ModelInferRequest request = TextRequest({"x"});
    set(&(*request.mutable_parameters())[name]);
    return Refusal(request);
  };
  EXPECT_EQ(refuse("nonsense", [](auto* p) { p->set_bool_param(true); }),
            "nonsense: there is no parameter or tensor of this name");
  EXPECT_EQ(refuse("max_tokens", [](auto* p) { p->set_string_param("many"); }),
            "max_tokens: must be an integer");
  EXPECT_EQ(refuse("max_tokens", [](auto* p) { p->set_double_param(1.5); }),
            "max_tokens: must be an integer");
  EXPECT_EQ(refuse("max_tokens", [](auto* p) { p->set_int64_param(int64_t{1} << 40); }),
            "max_tokens: must be an integer of 32 bits, got 1099511627776");
  EXPECT_EQ(refuse("temperature", [](auto* p) { p->set_bool_param(true); }),
            "temperature: must be a number");
  EXPECT_EQ(refuse("seed", [](auto* p) { p->set_int64_param(-1); }),
            "seed: must not be negative, got -1");
  EXPECT_EQ(refuse("stop", [](auto* p) { p->set_int64_param(1); }), "stop: must be text");
  EXPECT_EQ(refuse("stop", [](auto* p) { p->set_string_param("[1]"); }),
            "stop: must be a list of texts");
  EXPECT_EQ(refuse("echo", [](auto* p) { p->set_string_param("maybe"); }),
            "echo: must be true or false");
  EXPECT_EQ(refuse("top_p", [](auto*) {}), "top_p: has no value");
  EXPECT_EQ(refuse("stream", [](auto* p) { p->set_bool_param(true); }),
            "stream: must be false for ModelInfer; use ModelStreamInfer");
}

// The frontend's own refusals keep their code and words.
TEST_F(KserveTest, FrontendErrorsPass) {
  frontend_.refuse = absl::ResourceExhaustedError("queue full");
  EXPECT_EQ(Refusal(TextRequest({"x"}), grpc::StatusCode::RESOURCE_EXHAUSTED), "queue full");
  ModelInferRequest other = TextRequest({"x"});
  other.set_model_version("2");
  Refusal(other, grpc::StatusCode::NOT_FOUND);
}

TEST_F(KserveTest, CancelReachesTheFrontend) {
  grpc::ClientContext context;
  ModelInferRequest request = TextRequest({"x"});
  ModelInferResponse response;
  std::thread canceller([&] {
    const auto fake = frontend_.Next();
    ASSERT_NE(fake, nullptr);
    context.TryCancel();
    EXPECT_TRUE(fake->WaitCancelled());
    fake->Finish(absl::CancelledError("cancelled"));
  });
  EXPECT_EQ(stub_->ModelInfer(&context, request, &response).error_code(),
            grpc::StatusCode::CANCELLED);
  canceller.join();
}

// What a stream's client gets, by id.
struct Answer {
  std::string text;
  std::string error;
  int responses = 0;
  bool final = false;
};
bool ReadOne(Stream* stream, std::map<std::string, Answer>* answers) {
  ModelStreamInferResponse response;
  if (!stream->Read(&response)) return false;
  Answer& answer = (*answers)[response.infer_response().id()];
  EXPECT_FALSE(answer.final) << "a response after the final one";
  ++answer.responses;
  answer.error = response.error_message();
  for (const auto& output : response.infer_response().outputs()) {
    if (output.name() == "text_output") answer.text += output.contents().bytes_contents(0);
  }
  answer.final = response.infer_response().parameters().at("triton_final_response").bool_param();
  return true;
}

TEST_F(KserveTest, StreamAnswersSeveralRequests) {
  grpc::ClientContext context;
  SetDeadline(&context);
  const auto stream = stub_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(TextRequest({"x"}, "a")));
  const auto a = frontend_.Next();
  ASSERT_TRUE(stream->Write(TextRequest({"y"}, "b")));
  const auto b = frontend_.Next();
  ASSERT_TRUE(a != nullptr && b != nullptr);
  std::map<std::string, Answer> answers;
  a->Delta("1");
  ASSERT_TRUE(ReadOne(stream.get(), &answers));
  b->Delta("9");
  ASSERT_TRUE(ReadOne(stream.get(), &answers));
  EXPECT_FALSE(answers["a"].final);
  a->Delta("2");
  End(*a, 0);
  a->Finish();
  ModelInferRequest bad = TextRequest({"z"}, "c");
  (*bad.mutable_parameters())["nonsense"].set_bool_param(true);
  ASSERT_TRUE(stream->Write(bad));
  while (!answers["a"].final || !answers["c"].final) ASSERT_TRUE(ReadOne(stream.get(), &answers));
  EXPECT_EQ(answers["a"].text, "12");
  EXPECT_EQ(answers["c"].error,
            "INVALID_ARGUMENT: nonsense: there is no parameter or tensor of this name");
  stream->WritesDone();
  b->Delta("8");
  b->Finish(absl::UnavailableError("draining"));
  while (!answers["b"].final) ASSERT_TRUE(ReadOne(stream.get(), &answers));
  EXPECT_EQ(answers["b"].error, "UNAVAILABLE: draining");
  EXPECT_FALSE(ReadOne(stream.get(), &answers));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(KserveTest, StreamAnswersOnceIfAskedTo) {
  grpc::ClientContext context;
  SetDeadline(&context);
  const auto stream = stub_->ModelStreamInfer(&context);
  ModelInferRequest request = TextRequest({"x"}, "a");
  (*request.mutable_parameters())["stream"].set_bool_param(false);
  ASSERT_TRUE(stream->Write(request));
  stream->WritesDone();
  const auto fake = frontend_.Next();
  ASSERT_NE(fake, nullptr);
  for (int i = 0; i < 10; ++i) fake->Delta("x");
  End(*fake, 0);
  fake->Finish();
  std::map<std::string, Answer> answers;
  while (ReadOne(stream.get(), &answers)) {
  }
  EXPECT_EQ(answers["a"].responses, 1);
  EXPECT_EQ(answers["a"].text, "xxxxxxxxxx");
  EXPECT_TRUE(answers["a"].final);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(KserveTest, DroppedStreamCancelsAllItsRequests) {
  std::shared_ptr<FakeRequest> a, b;
  {
    grpc::ClientContext context;
    const auto stream = stub_->ModelStreamInfer(&context);
    ASSERT_TRUE(stream->Write(TextRequest({"x"}, "a")));
    ASSERT_TRUE(stream->Write(TextRequest({"y"}, "b")));
    a = frontend_.Next();
    b = frontend_.Next();
    ASSERT_TRUE(a != nullptr && b != nullptr);
    context.TryCancel();
    stream->Finish();
  }
  EXPECT_TRUE(a->WaitCancelled());
  EXPECT_TRUE(b->WaitCancelled());
  a->Finish(absl::CancelledError("cancelled"));
  b->Finish(absl::CancelledError("cancelled"));
  EXPECT_TRUE(service_->WaitUntilIdle(seconds(10)));
}

// An idle stream does not keep a server from stopping.
TEST_F(KserveTest, IdleStreamIsNoActiveCall) {
  grpc::ClientContext context;
  const auto stream = stub_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(TextRequest({"x"}, "a")));
  const auto fake = frontend_.Next();
  ASSERT_NE(fake, nullptr);
  EXPECT_FALSE(service_->WaitUntilIdle(std::chrono::milliseconds(20)));
  End(*fake, 0);
  fake->Finish();
  std::map<std::string, Answer> answers;
  ASSERT_TRUE(ReadOne(stream.get(), &answers));
  EXPECT_TRUE(service_->WaitUntilIdle(seconds(10)));
  context.TryCancel();
}

TEST_F(KserveTest, SlowReaderEndsTheRequestNotTheStream) {
  Start(/*stream_buffer_bytes=*/100'000);
  grpc::ClientContext context;
  SetDeadline(&context);
  const auto stream = stub_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(TextRequest({"x"}, "a")));
  const auto fake = frontend_.Next();
  ASSERT_NE(fake, nullptr);
  const std::string piece(50'000, 'x');
  for (int i = 0; i < 10'000 && !fake->WaitCancelled(std::chrono::milliseconds(0)); ++i)
    fake->Delta(piece);
  EXPECT_TRUE(fake->WaitCancelled());
  fake->Finish(absl::CancelledError("cancelled"));
  std::map<std::string, Answer> answers;
  while (!answers["a"].final) ASSERT_TRUE(ReadOne(stream.get(), &answers));
  EXPECT_NE(answers["a"].error.find("stream-buffer-bytes"), std::string::npos)
      << answers["a"].error;
  ASSERT_TRUE(stream->Write(TextRequest({"x"}, "b")));
  const auto next = frontend_.Next();
  ASSERT_NE(next, nullptr);
  next->Finish();
  while (!answers["b"].final) ASSERT_TRUE(ReadOne(stream.get(), &answers));
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

// Health is open, everything else needs a key, if there are any.
TEST_F(KserveTest, ApiKeys) {
  keys_ = {"secret"};
  Start(4 << 20);
  Refusal(TextRequest({"x"}), grpc::StatusCode::UNAUTHENTICATED);
  inference::ModelConfigResponse config;
  {
    grpc::ClientContext context;
    EXPECT_EQ(stub_->ModelConfig(&context, inference::ModelConfigRequest(), &config).error_code(),
              grpc::StatusCode::UNAUTHENTICATED);
  }
  {
    grpc::ClientContext context;
    const auto stream = stub_->ModelStreamInfer(&context);
    ModelStreamInferResponse response;
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  }
  {
    grpc::ClientContext context;
    inference::ServerLiveResponse live;
    EXPECT_TRUE(stub_->ServerLive(&context, inference::ServerLiveRequest(), &live).ok());
  }
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer secret");
  EXPECT_TRUE(stub_->ModelConfig(&context, inference::ModelConfigRequest(), &config).ok());
}

TEST_F(KserveTest, HealthAndMetadata) {
  const auto deadline = std::chrono::system_clock::now() + seconds(60);
  const auto ask = [&](auto method, const auto& request, auto* response) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    return ((*stub_).*method)(&context, request, response);
  };
  using Stub = inference::GRPCInferenceService::Stub;
  inference::ServerLiveResponse live;
  EXPECT_TRUE(ask(&Stub::ServerLive, inference::ServerLiveRequest(), &live).ok());
  EXPECT_TRUE(live.live());
  inference::ModelReadyRequest which;
  which.set_name("fake");
  inference::ModelReadyResponse model;
  EXPECT_TRUE(ask(&Stub::ModelReady, which, &model).ok());
  EXPECT_TRUE(model.ready());
  ready_ = false;
  EXPECT_TRUE(ask(&Stub::ModelReady, which, &model).ok());
  EXPECT_FALSE(model.ready());
  inference::ServerReadyResponse ready;
  EXPECT_TRUE(ask(&Stub::ServerReady, inference::ServerReadyRequest(), &ready).ok());
  EXPECT_FALSE(ready.ready());
  ready_ = true;
  inference::ServerMetadataResponse server;
  EXPECT_TRUE(ask(&Stub::ServerMetadata, inference::ServerMetadataRequest(), &server).ok());
  EXPECT_EQ(server.name(), "hgrn2-server");
  inference::ModelMetadataRequest named;
  inference::ModelMetadataResponse metadata;
  EXPECT_TRUE(ask(&Stub::ModelMetadata, named, &metadata).ok());
  EXPECT_EQ(metadata.name(), "fake");
  EXPECT_EQ(metadata.inputs(0).name(), "text_input");
  EXPECT_EQ(metadata.outputs(0).name(), "text_output");
  named.set_name("other");
  EXPECT_EQ(ask(&Stub::ModelMetadata, named, &metadata).error_code(), grpc::StatusCode::NOT_FOUND);
  inference::ModelConfigResponse config;
  EXPECT_TRUE(ask(&Stub::ModelConfig, inference::ModelConfigRequest(), &config).ok());
  EXPECT_TRUE(config.config().model_transaction_policy().decoupled());
  inference::RepositoryIndexResponse index;
  EXPECT_TRUE(ask(&Stub::RepositoryIndex, inference::RepositoryIndexRequest(), &index).ok());
  EXPECT_EQ(index.models(0).state(), "READY");
  auto health = grpc::health::v1::Health::NewStub(channel_);
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest service;
  service.set_service("inference.GRPCInferenceService");
  grpc::health::v1::HealthCheckResponse serving;
  EXPECT_TRUE(health->Check(&context, service, &serving).ok());
  EXPECT_EQ(serving.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

}  // namespace
}  // namespace hgrn2
