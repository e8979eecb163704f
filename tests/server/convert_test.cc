#include "server/convert.h"

#include <gtest/gtest.h>

#include "base/status.h"

namespace hgrn2 {
namespace {

template <typename Message>
std::string FieldOfError(Message message) {
  auto native = ToNative(std::move(message));
  EXPECT_EQ(native.status().code(), absl::StatusCode::kInvalidArgument);
  return FieldOf(native.status());
}

v1::GenerateRequest FullRequest() {
  v1::GenerateRequest in;
  in.set_model("m");
  in.set_request_id("id");
  in.add_prompts()->set_text("text");
  in.add_prompts()->mutable_tokens()->add_ids(7);
  in.set_echo(true);
  in.set_priority(-3);
  in.set_add_special_tokens(false);
  in.set_user("u");
  in.set_cache_salt("s");
  v1::SamplingParams& p = *in.mutable_sampling();
  p.set_max_tokens(9);
  p.set_min_tokens(2);
  p.set_temperature(0);
  p.set_top_p(0.5);
  p.set_top_k(-1);
  p.set_min_p(0.25);
  p.set_presence_penalty(1);
  p.set_frequency_penalty(-1);
  p.set_repetition_penalty(1.5);
  (*p.mutable_logit_bias())[5] = 1;
  (*p.mutable_logit_bias())[2] = -1;
  p.add_allowed_token_ids(11);
  p.add_bad_words("bad");
  p.set_seed(0);
  p.set_n(3);
  p.add_stop("END");
  p.add_stop_token_ids(12);
  p.set_ignore_eos(true);
  p.set_include_stop_str_in_output(true);
  p.set_skip_special_tokens(false);
  p.set_logprobs(0);
  p.set_prompt_logprobs(4);
  return in;
}

TEST(ConvertTest, EveryFieldOfAGenerateRequestArrives) {
  auto out = ToNative(FullRequest());
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->model, "m");
  EXPECT_EQ(out->request_id, "id");
  ASSERT_EQ(out->prompts.size(), 2u);
  EXPECT_EQ(std::get<std::string>(out->prompts[0]), "text");
  EXPECT_EQ(std::get<std::vector<int32_t>>(out->prompts[1]), std::vector<int32_t>{7});
  EXPECT_TRUE(out->echo);
  EXPECT_EQ(out->priority, -3);
  EXPECT_FALSE(out->add_special_tokens);
  EXPECT_EQ(out->user, "u");
  EXPECT_EQ(out->cache_salt, "s");
  const SamplingRequest& p = out->sampling;
  EXPECT_EQ(p.max_tokens, 9);
  EXPECT_EQ(p.min_tokens, 2);
  EXPECT_EQ(p.temperature, 0);
  EXPECT_EQ(p.top_p, 0.5);
  EXPECT_EQ(p.top_k, -1);
  EXPECT_EQ(p.min_p, 0.25);
  EXPECT_EQ(p.presence_penalty, 1);
  EXPECT_EQ(p.frequency_penalty, -1);
  EXPECT_EQ(p.repetition_penalty, 1.5);
  const std::vector<std::pair<int32_t, float>> sorted = {{2, -1}, {5, 1}};
  EXPECT_EQ(p.logit_bias, sorted);
  EXPECT_EQ(p.allowed_token_ids, std::vector<int32_t>{11});
  EXPECT_EQ(p.bad_words, std::vector<std::string>{"bad"});
  EXPECT_EQ(p.seed, 0u);
  EXPECT_EQ(p.n, 3);
  EXPECT_EQ(p.stop, std::vector<std::string>{"END"});
  EXPECT_EQ(p.stop_token_ids, std::vector<int32_t>{12});
  EXPECT_TRUE(p.ignore_eos);
  EXPECT_TRUE(p.include_stop_str_in_output);
  EXPECT_FALSE(p.skip_special_tokens);
  EXPECT_EQ(p.logprobs, 0);
  EXPECT_EQ(p.prompt_logprobs, 4);
}

TEST(ConvertTest, UnsetFieldsStayUnset) {
  v1::GenerateRequest in;
  in.add_prompts()->set_text("");
  auto out = ToNative(std::move(in));
  ASSERT_TRUE(out.ok());
  const SamplingRequest& p = out->sampling;
  EXPECT_FALSE(p.max_tokens || p.temperature || p.top_p || p.top_k || p.min_p || p.seed ||
               p.repetition_penalty);
  EXPECT_EQ(p.n, 1);
  EXPECT_EQ(p.logprobs, -1);
  EXPECT_EQ(p.prompt_logprobs, -1);
  EXPECT_TRUE(p.skip_special_tokens);
  EXPECT_TRUE(out->add_special_tokens);
  EXPECT_EQ(out->deadline, kInfiniteFuture);
}

TEST(ConvertTest, WhatNativeStructsCannotSayIsRefused) {
  v1::GenerateRequest no_prompt = FullRequest();
  no_prompt.add_prompts();
  EXPECT_EQ(FieldOfError(no_prompt), "prompts[2]");
  v1::GenerateRequest logprobs = FullRequest();
  logprobs.mutable_sampling()->set_logprobs(-1);  // natively: none
  EXPECT_EQ(FieldOfError(logprobs), "logprobs");
  v1::GenerateRequest prompt_logprobs = FullRequest();
  prompt_logprobs.mutable_sampling()->set_prompt_logprobs(-5);
  EXPECT_EQ(FieldOfError(prompt_logprobs), "prompt_logprobs");
  v1::GenerateRequest id = FullRequest();
  id.set_request_id(std::string(257, 'x'));
  EXPECT_EQ(FieldOfError(id), "request_id");
  v1::GenerateRequest user = FullRequest();
  user.set_user("a\nlevel=error forged");
  EXPECT_EQ(FieldOfError(user), "user");
  v1::ScoreRequest score;
  score.add_continuations();
  EXPECT_EQ(FieldOfError(score), "continuations[0]");
}

TEST(ConvertTest, ScoreRequest) {
  v1::ScoreRequest in;
  in.set_model("m");
  in.set_request_id("id");
  in.mutable_context()->set_text("c");
  in.add_continuations()->mutable_tokens()->add_ids(3);
  in.set_top_logprobs(2);
  in.set_priority(4);
  in.set_add_special_tokens(false);
  auto out = ToNative(std::move(in));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(std::get<std::string>(*out->context), "c");
  EXPECT_EQ(std::get<std::vector<int32_t>>(out->continuations.at(0)), std::vector<int32_t>{3});
  EXPECT_EQ(out->top_logprobs, 2);
  EXPECT_EQ(out->priority, 4);
  EXPECT_FALSE(out->add_special_tokens);
  v1::ScoreRequest no_context;
  no_context.add_continuations()->set_text("x");
  EXPECT_FALSE(ToNative(std::move(no_context))->context.has_value());
}

TEST(ConvertTest, DeltasMerge) {
  v1::ChoiceDelta out;
  ChoiceDelta first;
  first.index = 4;
  first.text = "ab";
  first.token_ids = {1, 2};
  TokenInfo info;
  info.score = {5, -0.5f, 2, {{9, -0.1f}}};
  info.bytes = "\xff";
  info.top_bytes = {"t"};
  first.logprobs = {info};
  TokenInfo unscored;
  unscored.score.token_id = 8;
  unscored.has_logprob = false;
  first.prompt_logprobs = {unscored};
  AppendTo(std::move(first), &out);
  ChoiceDelta last;
  last.index = 4;
  last.text = "c";
  last.token_ids = {3};
  last.finish_reason = FinishReason::kLength;
  last.stop_reason = "why";
  AppendTo(std::move(last), &out);
  EXPECT_EQ(out.index(), 4);
  EXPECT_EQ(out.text(), "abc");
  EXPECT_EQ(out.token_ids_size(), 3);
  ASSERT_EQ(out.logprobs_size(), 1);
  EXPECT_EQ(out.logprobs(0).token(), "\xff");
  EXPECT_EQ(out.logprobs(0).rank(), 2);
  EXPECT_FLOAT_EQ(out.logprobs(0).logprob(), -0.5f);
  ASSERT_EQ(out.logprobs(0).top_size(), 1);
  EXPECT_EQ(out.logprobs(0).top(0).token_id(), 9);
  EXPECT_EQ(out.logprobs(0).top(0).rank(), 1);
  EXPECT_EQ(out.logprobs(0).top(0).token(), "t");
  ASSERT_EQ(out.prompt_logprobs_size(), 1);
  EXPECT_FALSE(out.prompt_logprobs(0).has_logprob());
  EXPECT_EQ(out.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(out.stop_reason(), "why");
}

TEST(ConvertTest, ApproximateBytesFollowsTheMessage) {
  for (const int tokens : {1, 30, 1000}) {
    ChoiceDelta delta;
    for (int i = 0; i < tokens; ++i) {
      delta.text += "word ";
      delta.token_ids.push_back(i * 17);
      TokenInfo info;
      info.score = {i, -1.5f, 3, {{1, -1.f}, {2, -2.f}}};
      info.bytes = "word ";
      info.top_bytes = {"one", "two"};
      delta.logprobs.push_back(info);
    }
    const int64_t estimate = ApproximateBytes(delta);
    v1::ChoiceDelta out;
    AppendTo(std::move(delta), &out);
    const auto actual = static_cast<int64_t>(out.ByteSizeLong());
    EXPECT_LT(estimate, actual * 2) << tokens;
    EXPECT_GT(estimate, actual / 2) << tokens;
  }
}

}  // namespace
}  // namespace hgrn2
