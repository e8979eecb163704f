// Serving, by the real server binary.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <future>

#include "tests/server/integration_fixture.h"

namespace hgrn2 {
namespace {

using namespace hgrn2::testing;  // NOLINT: the fixture's helpers

TEST_F(IntegrationTest, TwoHundredConcurrentStreams) {
  Start({"--max-num-seqs", "48"});
  const Outcome alone = Generate(Prompt("The whale", 12));
  ASSERT_TRUE(alone.status.ok()) << alone.status.error_message();
  std::vector<std::future<Outcome>> streams;
  for (int i = 0; i < 200; ++i) {
    streams.push_back(std::async(std::launch::async, [&, i] {
      v1::GenerateRequest request = Prompt("The whale", 12);
      if (i % 2 == 1) *request.mutable_prompts(0)->mutable_text() += std::string(i % 37, 'x');
      return Generate(request);
    }));
  }
  for (int i = 0; i < 200; ++i) {
    const Outcome outcome = streams[i].get();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    EXPECT_EQ(outcome.num_tokens, 12);
    EXPECT_EQ(outcome.usage.completion_tokens(), 12);
    if (i % 2 == 0) {
      EXPECT_EQ(outcome.text, alone.text) << "depends on the rest of the batch";
    }
  }
  EXPECT_TRUE(Eventually([&] { return SlotsUsed() == 0; }));
  EXPECT_EQ(Metric("vllm:generation_tokens_total"), 201 * 12);
  EXPECT_EQ(Metric("vllm:request_success_total", "finished_reason=\"length\""), 201);
  EXPECT_EQ(Metric("hgrn2_grpc_requests_total", "method=\"Generate\",code=\"OK\""), 201);
}

TEST_F(IntegrationTest, DroppedStreamsFreeTheirSlots) {
  Start({"--max-num-seqs", "8"});
  std::vector<std::unique_ptr<Running>> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(Begin(Prompt("Once upon a time", kForever)));
  EXPECT_EQ(SlotsUsed(), 8);
  // Half say that they cancel, half just go.
  for (int i = 0; i < 4; ++i) streams[i]->context.TryCancel();
  streams.clear();
  EXPECT_TRUE(Eventually([&] { return SlotsUsed() == 0; }, seconds(5)));
  EXPECT_EQ(Metric("hgrn2_requests_cancelled_total", "phase=\"decode\""), 8);
  // No step is spent on them any more.
  const double steps = Metric("hgrn2_batch_size_count");
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(Metric("hgrn2_batch_size_count"), steps);
  EXPECT_TRUE(Generate(Prompt("Again", 3)).status.ok());
}

TEST_F(IntegrationTest, CompleteAndScoreAreCancelledWithTheirClients) {
  Start({"--max-num-seqs", "4"});
  grpc::ClientContext complete, score;
  std::thread complete_client([&] {
    v1::CompleteResponse response;
    stub_->Complete(&complete, Prompt("Once", kForever), &response);
  });
  std::thread score_client([&] {
    v1::ScoreRequest request;
    for (int i = 0; i < 2000; ++i) {
      request.add_continuations()->set_text(fmt::format("words and more words {}", i));
    }
    v1::ScoreResponse response;
    stub_->Score(&score, request, &response);
  });
  EXPECT_TRUE(Eventually([&] { return SlotsUsed() >= 2; }));
  complete.TryCancel();
  score.TryCancel();
  complete_client.join();
  score_client.join();
  EXPECT_TRUE(Eventually([&] { return SlotsUsed() == 0; }));
}

TEST_F(IntegrationTest, Deadlines) {
  Start({"--max-num-seqs", "1"});
  // While decoding.
  const Outcome decoding = Generate(Prompt("Once", kForever), milliseconds(500));
  EXPECT_EQ(decoding.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Eventually([&] { return SlotsUsed() == 0; }));
  EXPECT_TRUE(
      Eventually([&] { return Metric("hgrn2_deadline_misses_total", "phase=\"decode\"") == 1; }));
  // In the queue, behind a stream that does not end.
  auto running = Begin(Prompt("Once", kForever));
  const Outcome queued = Generate(Prompt("Twice", 1), milliseconds(200));
  EXPECT_EQ(queued.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(queued.num_messages, 0);
  EXPECT_TRUE(
      Eventually([&] { return Metric("hgrn2_deadline_misses_total", "phase=\"queued\"") == 1; }));
  EXPECT_TRUE(Eventually([&] { return Metric("vllm:num_requests_waiting") == 0; }));
  running->context.TryCancel();
}

TEST_F(IntegrationTest, ASlowReaderHoldsUpNobody) {
  Start({"--stream-buffer-bytes", "4096", "--max-num-seqs", "2"});
  v1::GenerateRequest verbose = Prompt("Once", kForever);
  verbose.mutable_sampling()->set_logprobs(20);
  // The client's library reads ahead by this much; the default takes megabytes to fill.
  grpc::ChannelArguments small_window;
  small_window.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4096);
  small_window.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  auto stub = v1::Inference::NewStub(Connect(small_window));
  auto slow = std::make_unique<Running>();
  slow->reader = stub->Generate(&slow->context, verbose);
  const Outcome other = Generate(Prompt("The whale", 50));
  EXPECT_TRUE(other.status.ok());
  EXPECT_EQ(other.num_tokens, 50);
  ASSERT_TRUE(Eventually([&] { return Metric("hgrn2_slow_reader_cancellations_total") == 1; },
                         seconds(120)));
  EXPECT_TRUE(Eventually([&] { return SlotsUsed() == 0; }));
  const Outcome outcome = slow->Finish();
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(outcome.status.error_message().find("too slowly"), std::string::npos);
}

TEST_F(IntegrationTest, AFullQueueIsSaidAtOnce) {
  Start({"--max-num-seqs", "1", "--max-num-queued-reqs", "2"});
  auto running = Begin(Prompt("Once", kForever));
  std::vector<std::unique_ptr<Running>> waiting;
  for (int i = 0; i < 2; ++i) {
    waiting.push_back(std::make_unique<Running>());
    waiting.back()->reader = stub_->Generate(&waiting.back()->context, Prompt("Wait", 1));
  }
  ASSERT_TRUE(Eventually([&] { return Metric("vllm:num_requests_waiting") == 2; }));
  const Outcome refused = Generate(Prompt("Too many", 1));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(HasRetryInfo(refused.status));
  EXPECT_NE(refused.status.error_message().find("2"), std::string::npos);
  EXPECT_EQ(Metric("hgrn2_requests_rejected_total", "reason=\"queue_full\""), 1);
  running->context.TryCancel();
  for (auto& stream : waiting) EXPECT_TRUE(stream->Finish().status.ok());
}

TEST_F(IntegrationTest, UrgentRequestsTakeSlotsAndNothingIsLost) {
  Start({"--max-num-seqs", "1"});
  const Outcome alone = Generate(Prompt("The sea was", 60));
  v1::GenerateRequest request = Prompt("The sea was", 60);
  request.set_priority(50);
  auto background = Begin(request);
  v1::GenerateRequest urgent = Prompt("Now", 3);
  urgent.set_priority(-50);
  EXPECT_TRUE(Generate(urgent).status.ok());
  const Outcome rest = background->Finish();
  EXPECT_TRUE(rest.status.ok());
  EXPECT_TRUE(alone.text.ends_with(rest.text))
      << "'" << alone.text << "' and '" << rest.text << "'";
  EXPECT_GT(Metric("vllm:num_preemptions_total"), 0);
  EXPECT_GT(Metric("hgrn2_snapshot_operations_total", "op=\"save\",result=\"ok\""), 0);
}

TEST_F(IntegrationTest, HealthReadyVersionAndMetrics) {
  Start();
  EXPECT_EQ(Health(""), HealthResponse::SERVING);
  EXPECT_EQ(Health("hgrn2.v1.Inference"), HealthResponse::SERVING);
  EXPECT_EQ(HttpGet(server_->http_port(), "/health").status, 200);
  EXPECT_EQ(HttpGet(server_->http_port(), "/ready").status, 200);
  EXPECT_NE(HttpGet(server_->http_port(), "/version").body.find("0."), std::string::npos);
  EXPECT_EQ(HttpGet(server_->http_port(), "/v1/nothing").status, 404);
  EXPECT_EQ(Metric("vllm:num_requests_running"), 0);
}

// The reflection messages are not among the system's headers: this is
// ServerReflectionRequest{list_services: "*"}, and the names are found in the answer's bytes.
TEST_F(IntegrationTest, Reflection) {
  Start();
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  const auto wait = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  call->StartCall(nullptr);
  ASSERT_TRUE(wait());
  grpc::Slice slice("\x3a\x01*");
  call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
  ASSERT_TRUE(wait());
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  ASSERT_TRUE(wait());
  grpc::Slice bytes;
  ASSERT_TRUE(answer.DumpToSingleSlice(&bytes).ok());
  const std::string text(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  EXPECT_NE(text.find("hgrn2.v1.Inference"), std::string::npos);
  EXPECT_NE(text.find("grpc.health.v1.Health"), std::string::npos);
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
}

TEST_F(IntegrationTest, BadParametersAreNamed) {
  Start();
  using Sampling = v1::SamplingParams;
  const auto with = [](std::function<void(Sampling*)> set) {
    return [set](v1::GenerateRequest* request) { set(request->mutable_sampling()); };
  };
  const std::vector<std::pair<std::string, std::function<void(v1::GenerateRequest*)>>> cases = {
      {"sampling.max_tokens", with([](Sampling* p) { p->set_max_tokens(0); })},
      {"sampling.max_tokens", with([](Sampling* p) { p->set_max_tokens(-1); })},
      {"sampling.max_tokens", with([](Sampling* p) { p->set_max_tokens(INT32_MAX); })},
      {"sampling.min_tokens", with([](Sampling* p) { p->set_min_tokens(-1); })},
      {"sampling.min_tokens", with([](Sampling* p) { p->set_min_tokens(1000); })},
      {"sampling.temperature", with([](Sampling* p) { p->set_temperature(-0.1f); })},
      {"sampling.temperature", with([](Sampling* p) { p->set_temperature(NAN); })},
      {"sampling.temperature", with([](Sampling* p) { p->set_temperature(INFINITY); })},
      {"sampling.top_p", with([](Sampling* p) { p->set_top_p(0); })},
      {"sampling.top_p", with([](Sampling* p) { p->set_top_p(1.5f); })},
      {"sampling.top_p", with([](Sampling* p) { p->set_top_p(NAN); })},
      {"sampling.top_k", with([](Sampling* p) { p->set_top_k(-2); })},
      {"sampling.min_p", with([](Sampling* p) { p->set_min_p(1.1f); })},
      {"sampling.presence_penalty", with([](Sampling* p) { p->set_presence_penalty(2.1f); })},
      {"sampling.frequency_penalty", with([](Sampling* p) { p->set_frequency_penalty(-3); })},
      {"sampling.repetition_penalty", with([](Sampling* p) { p->set_repetition_penalty(0); })},
      {"sampling.logit_bias", with([](Sampling* p) { (*p->mutable_logit_bias())[1] = 101; })},
      {"sampling.logit_bias", with([](Sampling* p) { (*p->mutable_logit_bias())[-1] = 1; })},
      {"sampling.allowed_token_ids", with([](Sampling* p) { p->add_allowed_token_ids(1 << 30); })},
      {"sampling.bad_words", with([](Sampling* p) { p->add_bad_words(std::string()); })},
      {"sampling.n", with([](Sampling* p) { p->set_n(0); })},
      {"sampling.n", with([](Sampling* p) { p->set_n(129); })},
      {"sampling.stop", with([](Sampling* p) { p->add_stop(std::string()); })},
      {"sampling.stop", with([](Sampling* p) {
         for (int i = 0; i < 17; ++i) p->add_stop(std::string("x"));
       })},
      {"sampling.stop_token_ids", with([](Sampling* p) { p->add_stop_token_ids(-1); })},
      {"sampling.logprobs", with([](Sampling* p) { p->set_logprobs(21); })},
      {"sampling.logprobs", with([](Sampling* p) { p->set_logprobs(-1); })},
      {"sampling.prompt_logprobs", with([](Sampling* p) { p->set_prompt_logprobs(21); })},
      {"prompts", [](v1::GenerateRequest* r) { r->clear_prompts(); }},
      {"prompts",
       [](v1::GenerateRequest* r) {
         for (int i = 0; i < 128; ++i) r->add_prompts()->set_text("x");
       }},
      {"prompts[1]", [](v1::GenerateRequest* r) { r->add_prompts(); }},
      {"prompts[0]",
       [](v1::GenerateRequest* r) { r->mutable_prompts(0)->mutable_tokens()->add_ids(-1); }},
      {"priority", [](v1::GenerateRequest* r) { r->set_priority(101); }},
      {"request_id", [](v1::GenerateRequest* r) { r->set_request_id("two\nlines"); }},
  };
  for (const auto& [field, spoil] : cases) {
    v1::GenerateRequest request = Prompt("fine", 4);
    spoil(&request);
    const Outcome outcome = Generate(request);
    EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << field << ": " << request.ShortDebugString();
    google::rpc::BadRequest bad_request;
    ASSERT_TRUE(FindDetail(outcome.status, &bad_request)) << outcome.status.error_message();
    EXPECT_EQ(bad_request.field_violations(0).field(), field);
    grpc::ClientContext context;
    v1::CompleteResponse response;
    EXPECT_EQ(stub_->Complete(&context, request, &response).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  v1::GenerateRequest unknown = Prompt("fine", 4);
  unknown.set_model("gpt-5");
  EXPECT_EQ(Generate(unknown).status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(Generate(Prompt("fine", 4)).status.ok());
}

TEST_F(IntegrationTest, EveryCallAnswers) {
  Start({"--max-num-seqs", "5", "--served-model-name", "books"});
  grpc::ClientContext c1, c2, c3, c4, c5;
  v1::GetModelResponse model;
  ASSERT_TRUE(stub_->GetModel(&c1, {}, &model).ok());
  EXPECT_EQ(model.name(), "books");
  EXPECT_EQ(model.max_num_seqs(), 5);
  EXPECT_TRUE(model.has_tokenizer());
  EXPECT_GT(model.num_parameters(), 10'000'000);
  EXPECT_GT(model.state_bytes_per_sequence(), 0);
  v1::TokenizeRequest tokenize;
  tokenize.set_text("Call me Ishmael.");
  tokenize.set_add_special_tokens(false);
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(stub_->Tokenize(&c2, tokenize, &tokens).ok());
  ASSERT_GT(tokens.token_ids_size(), 1);
  EXPECT_EQ(tokens.tokens_size(), tokens.token_ids_size());
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(stub_->Detokenize(&c3, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "Call me Ishmael.");
  v1::ScoreRequest score;
  score.mutable_context()->set_text("Call me");
  score.add_continuations()->set_text(" Ishmael");
  score.add_continuations()->set_text(" xqzzt");
  v1::ScoreResponse scores;
  ASSERT_TRUE(stub_->Score(&c4, score, &scores).ok());
  ASSERT_EQ(scores.scores_size(), 2);
  EXPECT_GT(scores.scores(0).sum_logprob(), scores.scores(1).sum_logprob());
  v1::GenerateRequest request = Prompt("The whale", 6);
  request.mutable_sampling()->set_n(3);
  v1::CompleteResponse complete;
  ASSERT_TRUE(stub_->Complete(&c5, request, &complete).ok());
  ASSERT_EQ(complete.choices_size(), 3);
  EXPECT_EQ(complete.usage().completion_tokens(), 18);
  EXPECT_EQ(complete.choices(0).finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(IntegrationTest, SeveralEnginesGiveTheSameTokens) {
  Start({"--max-num-seqs", "2"});
  const Outcome alone = Generate(Prompt("The whale", 20));
  Start({"--max-num-seqs", "2", "--device", "cpu,cpu", "--num-threads", "1"});
  std::vector<std::future<Outcome>> streams;
  for (int i = 0; i < 8; ++i) {
    streams.push_back(
        std::async(std::launch::async, [&] { return Generate(Prompt("The whale", 20)); }));
  }
  for (auto& stream : streams) {
    const Outcome outcome = stream.get();
    EXPECT_TRUE(outcome.status.ok());
    EXPECT_EQ(outcome.text, alone.text);
  }
  EXPECT_EQ(Metric("hgrn2_state_slots", "tier=\"device\",state=\"free\""), 4);
}

}  // namespace
}  // namespace hgrn2
