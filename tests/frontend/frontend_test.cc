#include "engine/frontend/frontend.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <thread>

#include "base/mutex.h"
#include "base/status.h"
#include "tests/engine/fake_backend.h"
#include "tests/frontend/byte_tokenizer.h"

namespace hgrn2 {
namespace {

using testing::ByteTokenizer;
using testing::FakeBackend;

class RecordingHandler : public CompletionHandler {
 public:
  void OnDelta(ChoiceDelta delta) override {
    MutexLock lock(&mu);
    EXPECT_FALSE(done);
    Choice& choice = choices[delta.index];
    EXPECT_FALSE(choice.reason.has_value()) << "a delta after the last one";
    choice.text += delta.text;
    choice.ids.insert(choice.ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    for (auto& info : delta.logprobs) choice.logprobs.push_back(std::move(info));
    for (auto& info : delta.prompt_logprobs) choice.prompt_logprobs.push_back(std::move(info));
    choice.reason = delta.finish_reason;
    choice.stop_reason = delta.stop_reason;
    choice.pieces.push_back(delta.text);
  }
  void OnDone(const absl::Status& done_status, const Usage& done_usage, const Timing&) override {
    MutexLock lock(&mu);
    EXPECT_FALSE(done);
    done = true;
    status = done_status;
    usage = done_usage;
    cv.NotifyAll();
  }
  void Wait() {
    MutexLock lock(&mu);
    while (!done) cv.Wait(&mu);
  }

  struct Choice {
    std::string text, stop_reason;
    std::vector<std::string> pieces;
    std::vector<int32_t> ids;
    std::vector<TokenInfo> logprobs, prompt_logprobs;
    std::optional<FinishReason> reason;
  };
  Mutex mu;
  CondVar cv;
  bool done = false;
  absl::Status status;
  Usage usage;
  std::map<int32_t, Choice> choices;
};

class FrontendTest : public ::testing::Test {
 protected:
  void Start(FakeBackend::Options options = {}, EngineOptions engine_options = {},
             bool with_tokenizer = true) {
    auto backend = std::make_unique<FakeBackend>(options);
    engine_ = Engine::Create(std::move(backend), engine_options);
    config_.vocab_size = testing::kFakeVocab;
    config_.eos_token_ids = {ByteTokenizer::kEnd};
    frontend_ =
        Frontend::Create(*engine_, config_, defaults_, with_tokenizer ? &tokenizer_ : nullptr,
                         {.served_model_name = "fake", .workers = PlainWorkerLoops(2), .seed = 1});
  }
  void TearDown() override {
    if (engine_ != nullptr) engine_->Drain(std::chrono::seconds(10));
    frontend_.reset();
  }

  std::shared_ptr<RecordingHandler> Run(CompletionRequest request) {
    auto handler = std::make_shared<RecordingHandler>();
    const auto control = frontend_->Generate(std::move(request), handler);
    EXPECT_TRUE(control.ok()) << control.status();
    if (control.ok()) handler->Wait();
    return handler;
  }

  static CompletionRequest Text(std::string prompt, int32_t max_tokens) {
    CompletionRequest request;
    request.prompts = {std::move(prompt)};
    request.sampling.max_tokens = max_tokens;
    return request;
  }

  ModelConfig config_;
  GenerationDefaults defaults_;
  ByteTokenizer tokenizer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Frontend> frontend_;
};

TEST_F(FrontendTest, StreamsTextOfWholeCharacters) {
  Start({.script = "h\xC3\xA9llo \xE2\x82\xAC!"});
  const auto handler = Run(Text("x", 11));
  EXPECT_EQ(handler->choices[0].text, "h\xC3\xA9llo \xE2\x82\xAC!");
  EXPECT_EQ(handler->choices[0].ids.size(), 11u);
  EXPECT_EQ(handler->choices[0].reason, FinishReason::kLength);
  for (const std::string& piece : handler->choices[0].pieces) {
    EXPECT_TRUE(piece.empty() || (piece[0] & 0xC0) != 0x80) << "a character was cut";
  }
  EXPECT_EQ(handler->usage.prompt_tokens, 1);
  EXPECT_EQ(handler->usage.completion_tokens, 11);
}

TEST_F(FrontendTest, IncompleteCharacterAtTheEndIsReplaced) {
  Start({.script = "ab\xE2\x82\xAC"});
  EXPECT_EQ(Run(Text("x", 4))->choices[0].text, "ab\xEF\xBF\xBD");
}

TEST_F(FrontendTest, StopStringSpanningTokensIsCutAndFreesTheSlot) {
  Start({.script = "one two three four five six"});
  CompletionRequest request = Text("x", 100000);
  request.sampling.stop = {"ree f", "zzz"};
  auto handler = Run(request);
  EXPECT_EQ(handler->choices[0].text, "one two th");
  EXPECT_EQ(handler->choices[0].reason, FinishReason::kStop);
  EXPECT_EQ(handler->choices[0].stop_reason, "ree f");
  EXPECT_EQ(handler->usage.completion_tokens, 15);
  EXPECT_TRUE(handler->status.ok());
  request.sampling.include_stop_str_in_output = true;
  EXPECT_EQ(Run(request)->choices[0].text, "one two three f");
  EXPECT_TRUE(engine_->Drain(std::chrono::seconds(5)));
  EXPECT_EQ(engine_->Stats().slots_used, 0);
}

TEST_F(FrontendTest, HeldBackTextComesOutWhenNoStopStringFollows) {
  Start({.script = "abcabd"});
  CompletionRequest request = Text("x", 5);
  request.sampling.stop = {"abd!", "bdx"};
  EXPECT_EQ(Run(request)->choices[0].text, "abcab");
}

TEST_F(FrontendTest, StopTokensAreLeftOutOfTheTextUnlessAskedFor) {
  Start({.script = "abc"});
  CompletionRequest request = Text("x", 10);
  request.sampling.stop_token_ids = {'c'};
  auto handler = Run(request);
  EXPECT_EQ(handler->choices[0].text, "ab");
  EXPECT_EQ(handler->choices[0].ids, (std::vector<int32_t>{'a', 'b', 'c'}));
  EXPECT_EQ(handler->choices[0].stop_reason, std::to_string('c'));
  request.sampling.include_stop_str_in_output = true;
  EXPECT_EQ(Run(request)->choices[0].text, "abc");
}

TEST_F(FrontendTest, EchoAndPromptLogprobs) {
  Start({.script = "yes"});
  CompletionRequest request = Text("ask ", 3);
  request.echo = true;
  request.sampling.logprobs = 2;
  request.sampling.n = 2;
  const auto handler = Run(request);
  for (int c : {0, 1}) {
    EXPECT_EQ(handler->choices[c].text, "ask yes");
    EXPECT_EQ(handler->choices[c].ids.size(), 7u);
    EXPECT_EQ(handler->choices[c].logprobs.size(), 3u);
  }
  ASSERT_EQ(handler->choices[0].prompt_logprobs.size(), 4u);
  EXPECT_FALSE(handler->choices[0].prompt_logprobs[0].has_logprob);
  EXPECT_EQ(handler->choices[0].prompt_logprobs[0].bytes, "a");
  EXPECT_TRUE(handler->choices[0].prompt_logprobs[1].has_logprob);
  EXPECT_EQ(handler->choices[0].logprobs[0].bytes, "y");
  EXPECT_EQ(handler->choices[0].logprobs[0].top_bytes.size(), 2u);
}

TEST_F(FrontendTest, SeveralPromptsAndChoicesAreIndexedAsDocumented) {
  Start();
  CompletionRequest request;
  request.prompts = {std::string("a"), std::vector<int32_t>{5, 6}, std::string("ccc")};
  request.sampling.n = 2;
  request.sampling.max_tokens = 4;
  request.sampling.seed = 3;
  const auto first = Run(request);
  EXPECT_EQ(first->choices.size(), 6u);
  EXPECT_EQ(first->usage.prompt_tokens, 6);
  EXPECT_EQ(first->usage.completion_tokens, 24);
  const auto second = Run(request);
  for (int c = 0; c < 6; ++c) EXPECT_EQ(first->choices[c].ids, second->choices[c].ids);
  CompletionRequest alone = request;
  alone.prompts = {request.prompts[1]};
  alone.sampling.n = 1;
  EXPECT_EQ(Run(alone)->choices[0].ids, first->choices[2].ids);
}

TEST_F(FrontendTest, UnseededRequestsDiffer) {
  Start();
  EXPECT_NE(Run(Text("x", 8))->choices[0].ids, Run(Text("x", 8))->choices[0].ids);
}

TEST_F(FrontendTest, CancelEndsTheRequest) {
  Start({.real_step_time = std::chrono::milliseconds(1), .script = "a"});
  auto handler = std::make_shared<RecordingHandler>();
  const auto control = frontend_->Generate(Text("x", 1 << 20), handler);
  ASSERT_TRUE(control.ok());
  (*control)->Cancel();
  handler->Wait();
  EXPECT_EQ(handler->status.code(), absl::StatusCode::kCancelled);
}

TEST_F(FrontendTest, AllPromptsAreTakenOrNone) {
  Start({.num_slots = 1, .real_step_time = std::chrono::milliseconds(1), .script = "a"},
        {.max_num_queued_reqs = 2});
  auto running = std::make_shared<RecordingHandler>();
  const auto control = frontend_->Generate(Text("x", 1 << 20), running);
  ASSERT_TRUE(control.ok());
  while (engine_->Stats().num_running == 0) std::this_thread::yield();
  CompletionRequest many = Text("y", 1);
  many.prompts = {std::string("a"), std::string("b"), std::string("c")};
  auto refused = std::make_shared<RecordingHandler>();
  EXPECT_EQ(frontend_->Generate(many, refused).status().code(),
            absl::StatusCode::kResourceExhausted);
  (*control)->Cancel();
  running->Wait();
  EXPECT_TRUE(engine_->Drain(std::chrono::seconds(10)));
  MutexLock lock(&refused->mu);
  EXPECT_FALSE(refused->done);
  EXPECT_TRUE(refused->choices.empty());
}

TEST_F(FrontendTest, ScoreGivesSumsAndGreedyFlags) {
  Start();
  struct Handler : ScoreHandler {
    void OnDone(const absl::Status& s, std::vector<ContinuationResult> r, const Usage& u) override {
      MutexLock lock(&mu);
      status = s;
      results = std::move(r);
      usage = u;
      done = true;
      cv.NotifyAll();
    }
    Mutex mu;
    CondVar cv;
    bool done = false;
    absl::Status status;
    std::vector<ContinuationResult> results;
    Usage usage;
  };
  auto handler = std::make_shared<Handler>();
  ScoreInput input;
  input.context = PromptInput(std::string("ab"));
  const int32_t best = testing::FakeNextToken({'a', 'b'}, 0, 0);
  input.continuations = {std::vector<int32_t>{best}, std::string("xyz")};
  ASSERT_TRUE(frontend_->Score(input, handler).ok());
  MutexLock lock(&handler->mu);
  while (!handler->done) handler->cv.Wait(&handler->mu);
  ASSERT_TRUE(handler->status.ok());
  ASSERT_EQ(handler->results.size(), 2u);
  EXPECT_TRUE(handler->results[0].is_greedy);
  EXPECT_FALSE(handler->results[1].is_greedy);
  double sum = 0;
  for (const TokenInfo& token : handler->results[1].tokens) sum += token.score.logprob;
  EXPECT_DOUBLE_EQ(handler->results[1].sum_logprob, sum);
  EXPECT_EQ(handler->usage.prompt_tokens, 6);
}

TEST_F(FrontendTest, UnknownModelIsNotFound) {
  Start();
  CompletionRequest request = Text("x", 1);
  request.model = "other";
  EXPECT_EQ(frontend_->Generate(request, nullptr).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(frontend_->CheckModel("fake").ok());
}

TEST_F(FrontendTest, EveryBadParameterIsRefusedByName) {
  Start();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  using Spoil = std::function<void(CompletionRequest&)>;
  const std::vector<std::pair<std::string, Spoil>> cases = {
      {"prompts", [](auto& r) { r.prompts.clear(); }},
      {"prompts", [](auto& r) { r.prompts.resize(129, std::string("x")); }},
      {"prompt", [](auto& r) { r.prompts = {std::string()}; }},
      {"prompt", [](auto& r) { r.prompts = {std::vector<int32_t>{-1}}; }},
      {"prompt", [](auto& r) { r.prompts = {std::vector<int32_t>{1000}}; }},
      {"priority", [](auto& r) { r.priority = 101; }},
      {"max_tokens", [](auto& r) { r.sampling.max_tokens = 0; }},
      {"max_tokens", [](auto& r) { r.sampling.max_tokens = (1 << 20) + 1; }},
      {"min_tokens", [](auto& r) { r.sampling.min_tokens = 17; }},
      {"min_tokens", [](auto& r) { r.sampling.min_tokens = -1; }},
      {"temperature", [](auto& r) { r.sampling.temperature = -0.1f; }},
      {"temperature", [=](auto& r) { r.sampling.temperature = nan; }},
      {"temperature", [](auto& r) { r.sampling.temperature = HUGE_VALF; }},
      {"top_p", [](auto& r) { r.sampling.top_p = 0; }},
      {"top_p", [](auto& r) { r.sampling.top_p = 1.01f; }},
      {"top_p", [=](auto& r) { r.sampling.top_p = nan; }},
      {"top_k", [](auto& r) { r.sampling.top_k = -2; }},
      {"min_p", [](auto& r) { r.sampling.min_p = 1.5f; }},
      {"presence_penalty", [](auto& r) { r.sampling.presence_penalty = 2.5f; }},
      {"frequency_penalty", [=](auto& r) { r.sampling.frequency_penalty = nan; }},
      {"repetition_penalty", [](auto& r) { r.sampling.repetition_penalty = 0; }},
      {"logit_bias",
       [](auto& r) {
         r.sampling.logit_bias = {{1000, 1.0f}};
       }},
      {"logit_bias",
       [](auto& r) {
         r.sampling.logit_bias = {{1, 101.0f}};
       }},
      {"allowed_token_ids", [](auto& r) { r.sampling.allowed_token_ids = {-5}; }},
      {"bad_words", [](auto& r) { r.sampling.bad_words = {""}; }},
      {"n", [](auto& r) { r.sampling.n = 0; }},
      {"n", [](auto& r) { r.sampling.n = 129; }},
      {"stop", [](auto& r) { r.sampling.stop = {""}; }},
      {"stop", [](auto& r) { r.sampling.stop.resize(17, "x"); }},
      {"stop", [](auto& r) { r.sampling.stop = {std::string(2000, 'x')}; }},
      {"stop_token_ids", [](auto& r) { r.sampling.stop_token_ids = {1000}; }},
      {"logprobs", [](auto& r) { r.sampling.logprobs = 21; }},
      {"prompt_logprobs", [](auto& r) { r.sampling.prompt_logprobs = 21; }},
  };
  for (const auto& [field, spoil] : cases) {
    CompletionRequest request = Text("x", 16);
    spoil(request);
    const absl::Status status = frontend_->Generate(request, nullptr).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_EQ(FieldOf(status), field) << status;
  }
}

TEST_F(FrontendTest, WithoutATokenizerOnlyTokenIdsAreServed) {
  Start({}, {}, false);
  EXPECT_EQ(FieldOf(frontend_->Generate(Text("x", 1), nullptr).status()), "prompt");
  CompletionRequest request = Text("x", 4);
  request.prompts = {std::vector<int32_t>{1, 2}};
  request.sampling.logprobs = 1;
  const auto handler = Run(request);
  EXPECT_EQ(handler->choices[0].ids.size(), 4u);
  EXPECT_EQ(handler->choices[0].text, "");
  request.sampling.stop = {"x"};
  EXPECT_EQ(FieldOf(frontend_->Generate(request, nullptr).status()), "stop");
}

TEST_F(FrontendTest, GenerationDefaultsApplyToUnsetFields) {
  defaults_.max_new_tokens = 3;
  defaults_.eos_token_ids = {'b'};
  Start({.script = "abc"});
  CompletionRequest request;
  request.prompts = {std::string("x")};
  auto handler = Run(request);
  EXPECT_EQ(handler->choices[0].text, "a");
  EXPECT_EQ(handler->choices[0].stop_reason, "") << "an end-of-sequence token, not a stop token";
  request.sampling.ignore_eos = true;
  EXPECT_EQ(Run(request)->choices[0].text, "abc");
}

}  // namespace
}  // namespace hgrn2
