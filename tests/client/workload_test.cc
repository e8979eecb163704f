#include "client/load/workload.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <set>

namespace hgrn2::client {
namespace {

Distribution Parse(const std::string& spec, double min = 0) {
  return Distribution::Parse("--test", spec, min).value();
}

WorkloadOptions Options() {
  WorkloadOptions o;
  o.prompt_tokens = Parse("uniform:10:50");
  o.output_tokens = Parse("lognormal:30:0.5");
  o.turns = Parse("1");
  o.vocab_size = 1000;
  o.avoid_token_ids = {0, 7};
  o.seed = 11;
  return o;
}

std::string TempFile(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path) << text;
  return path;
}

std::vector<PlannedRequest> Take(Workload* workload, size_t count) {
  std::vector<PlannedRequest> plans;
  while (plans.size() < count) plans.push_back(workload->Next().value());
  return plans;
}

std::vector<int32_t> Prompt(const Workload& workload, const PlannedRequest& plan) {
  std::vector<int32_t> tokens;
  workload.AppendPromptTokens(plan, &tokens);
  return tokens;
}

TEST(Workload, TheSameSeedGivesTheSameRequests) {
  WorkloadOptions o = Options();
  o.rate = "100";
  o.cancel_share = 0.3;
  o.cancel_after = Parse("uniform:0:9");
  o.priorities = {{0, 0.5}, {10, 0.5}};
  const auto a = Workload::Create(o).value();
  const auto b = Workload::Create(o).value();
  o.seed = 12;
  const auto c = Workload::Create(o).value();
  bool differs = false;
  for (int i = 0; i < 500; ++i) {
    const PlannedRequest x = a->Next().value();
    const PlannedRequest y = b->Next().value();
    EXPECT_EQ(x.at_s, y.at_s);
    EXPECT_EQ(x.output_tokens, y.output_tokens);
    EXPECT_EQ(x.cancel_after, y.cancel_after);
    EXPECT_EQ(x.priority, y.priority);
    EXPECT_EQ(Prompt(*a, x), Prompt(*b, y));
    const PlannedRequest z = c->Next().value();
    differs |= z.at_s != x.at_s && Prompt(*c, z) != Prompt(*a, x);
  }
  EXPECT_TRUE(differs);
}

TEST(Workload, PromptsHaveTheDrawnLengthAndAvoidSpecialTokens) {
  const auto workload = Workload::Create(Options()).value();
  std::set<int32_t> seen;
  for (const PlannedRequest& plan : Take(workload.get(), 400)) {
    const auto tokens = Prompt(*workload, plan);
    EXPECT_EQ(tokens.size(), static_cast<size_t>(plan.prompt_tokens));
    EXPECT_GE(plan.prompt_tokens, 10);
    EXPECT_LE(plan.prompt_tokens, 50);
    seen.insert(tokens.begin(), tokens.end());
  }
  EXPECT_EQ(seen.count(0) + seen.count(7), 0u);
  EXPECT_EQ(seen.size(), 998u);  // 12 000 draws: every other id comes up
}

TEST(Workload, SharedPrefixesAreSharedWithinTheirGroup) {
  WorkloadOptions o = Options();
  o.prefix_tokens = 20;
  o.prefix_groups = 3;
  o.prefix_share = 0.6;
  const auto workload = Workload::Create(o).value();
  std::map<int, std::vector<int32_t>> prefixes;
  int without = 0;
  for (const PlannedRequest& plan : Take(workload.get(), 2000)) {
    const auto tokens = Prompt(*workload, plan);
    if (plan.prefix_group < 0) {
      ++without;
      EXPECT_EQ(tokens.size(), static_cast<size_t>(plan.prompt_tokens));
      continue;
    }
    ASSERT_EQ(tokens.size(), static_cast<size_t>(plan.prompt_tokens) + 20);
    const std::vector<int32_t> prefix(tokens.begin(), tokens.begin() + 20);
    EXPECT_EQ(prefixes.try_emplace(plan.prefix_group, prefix).first->second, prefix);
  }
  EXPECT_EQ(prefixes.size(), 3u);
  EXPECT_NE(prefixes[0], prefixes[1]);
  EXPECT_NEAR(without, 800, 80);
}

TEST(Workload, FractionsAndPrioritiesHaveTheirShares) {
  WorkloadOptions o = Options();
  o.cancel_share = 0.25;
  o.cancel_after = Parse("5");
  o.deadline_share = 0.1;
  o.deadline = Parse("2.5");
  o.priorities = {{-5, 0.2}, {0, 0.7}, {10, 0.1}};
  const auto workload = Workload::Create(o).value();
  int cancelled = 0;
  int limited = 0;
  std::map<int, int> priorities;
  for (const PlannedRequest& plan : Take(workload.get(), 10'000)) {
    cancelled += plan.cancel_after == 5;
    limited += plan.deadline_s == 2.5;
    ++priorities[plan.priority];
  }
  EXPECT_NEAR(cancelled, 2500, 150);
  EXPECT_NEAR(limited, 1000, 110);
  EXPECT_NEAR(priorities[-5], 2000, 140);
  EXPECT_NEAR(priorities[10], 1000, 110);
  EXPECT_EQ(priorities.size(), 3u);
}

TEST(Workload, SessionsHaveTheirTurns) {
  WorkloadOptions o = Options();
  o.turns = Parse("uniform:2:4");
  o.think_time = Parse("0.5");
  const auto workload = Workload::Create(o).value();
  std::map<int, int> lengths;
  for (const PlannedRequest& first : Take(workload.get(), 300)) {
    PlannedRequest plan = first;
    int turns = 1;
    while (const auto next = workload->NextTurn(plan)) {
      EXPECT_EQ(next->turn, plan.turn + 1);
      EXPECT_EQ(next->session, plan.session);
      EXPECT_DOUBLE_EQ(next->think_s, 0.5);
      EXPECT_NE(Prompt(*workload, *next), Prompt(*workload, plan));
      plan = *next;
      ++turns;
    }
    EXPECT_EQ(turns, first.num_turns);
    ++lengths[turns];
  }
  EXPECT_EQ(lengths.size(), 3u);
}

TEST(Workload, ReadsTraces) {
  WorkloadOptions o = Options();
  o.trace = TempFile("trace.jsonl",
                     R"({"at": 2.0, "prompt_tokens": 5, "output_tokens": 6, "priority": 3})"
                     "\n\n"
                     R"({"timestamp": 500, "input_length": 12, "output_length": 34})"
                     "\n"
                     R"({"at": 3, "prompt": "Hello", "deadline": 1.5, "cancel_after": 2})"
                     "\n");
  o.trace_speed = 2;
  const auto workload = Workload::Create(o).value();
  const auto plans = Take(workload.get(), 3);
  EXPECT_FALSE(workload->Next().has_value());
  EXPECT_DOUBLE_EQ(plans[0].at_s, 0.25);
  EXPECT_EQ(plans[0].prompt_tokens, 12);
  EXPECT_EQ(plans[0].output_tokens, 34);
  EXPECT_DOUBLE_EQ(plans[1].at_s, 1);
  EXPECT_EQ(plans[1].priority, 3);
  EXPECT_EQ(workload->text(plans[2]), "Hello");
  EXPECT_DOUBLE_EQ(plans[2].deadline_s, 1.5);
  EXPECT_EQ(plans[2].cancel_after, 2);
}

TEST(Workload, RefusesBadTracesByLine) {
  for (const char* bad :
       {"{\"prompt_tokens\": 5}", "[1]", "{\"at\": -1}", "nonsense",
        "{\"at\": 1, \"prompt_tokens\": 0}", "{\"at\": 1, \"output_tokens\": 1e12}"}) {
    WorkloadOptions o = Options();
    o.trace = TempFile("bad.jsonl", std::string("{\"at\": 0}\n") + bad + "\n");
    const auto workload = Workload::Create(o);
    ASSERT_FALSE(workload.ok()) << bad;
    EXPECT_NE(std::string(workload.status().message()).find("bad.jsonl line 2"), std::string::npos);
  }
}

TEST(Workload, ReadsPromptFiles) {
  WorkloadOptions o = Options();
  o.prompts =
      TempFile("prompts.txt", "plain text\n\"a \\\"string\\\"\"\n{\"prompt\": \"object\"}\n");
  const auto workload = Workload::Create(o).value();
  const auto plans = Take(workload.get(), 4);
  EXPECT_EQ(workload->text(plans[0]), "plain text");
  EXPECT_EQ(workload->text(plans[1]), "a \"string\"");
  EXPECT_EQ(workload->text(plans[2]), "object");
  EXPECT_EQ(workload->text(plans[3]), "plain text");
}

}  // namespace
}  // namespace hgrn2::client
