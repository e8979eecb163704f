#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace hgrn2 {
namespace {

SequenceSpec Spec(SequenceId id, int64_t prefill, int64_t decode, int32_t priority = 0,
                  int64_t arrival_ms = 0) {
  SequenceSpec spec;
  spec.id = id;
  spec.num_prefill_tokens = prefill;
  spec.num_decode_steps = decode;
  spec.priority = priority;
  spec.arrival = TimePoint(std::chrono::milliseconds(arrival_ms));
  return spec;
}

std::vector<SequenceId> Ids(const Plan& plan) {
  std::vector<SequenceId> ids;
  for (const PlanEntry& entry : plan.entries) ids.push_back(entry.id);
  return ids;
}

TEST(SchedulerTest, PrefillIsChunkedUnderTheBudgetAndAligned) {
  Scheduler scheduler({.num_slots = 2, .max_batched_tokens = 100, .chunk_alignment = 64});
  scheduler.Add(Spec(1, 150, 1));
  Plan plan = scheduler.MakePlan();
  ASSERT_EQ(plan.entries.size(), 1u);
  EXPECT_EQ(plan.entries[0].num_tokens, 64);
  EXPECT_TRUE(plan.entries[0].first);
  EXPECT_FALSE(plan.entries[0].ends_prefill);
  scheduler.Apply(plan);
  plan = scheduler.MakePlan();
  EXPECT_EQ(plan.entries[0].num_tokens, 86);
  EXPECT_TRUE(plan.entries[0].ends_prefill);
  EXPECT_FALSE(plan.entries[0].first);
  scheduler.Apply(plan);
  plan = scheduler.MakePlan();
  EXPECT_EQ(plan.entries[0].num_tokens, 1);
  EXPECT_FALSE(plan.entries[0].prefill);
  scheduler.Apply(plan);
  EXPECT_TRUE(scheduler.MakePlan().entries.empty()) << "all steps were planned";
}

TEST(SchedulerTest, ChunksAreCutAtMultiplesFromThePromptsStartWhateverTheLoad) {
  for (int decodes = 0; decodes < 3; ++decodes) {
    Scheduler scheduler({.num_slots = 4, .max_batched_tokens = 100, .chunk_alignment = 32});
    for (int i = 0; i < decodes; ++i) scheduler.Add(Spec(100 + i, 1, 1000));
    scheduler.Apply(scheduler.MakePlan());
    scheduler.Add(Spec(1, 333, 0, 0, 5));
    int64_t fed = 0;
    while (fed < 333) {
      const Plan plan = scheduler.MakePlan();
      for (const PlanEntry& entry : plan.entries) {
        if (entry.id == 1) fed += entry.num_tokens;
      }
      EXPECT_TRUE(fed % 32 == 0 || fed == 333) << fed;
      scheduler.Apply(plan);
    }
  }
}

TEST(SchedulerTest, RunningDecodesKeepTheirPaceWhileAPromptIsPrefilled) {
  Scheduler scheduler({.num_slots = 3, .max_batched_tokens = 66, .chunk_alignment = 64});
  scheduler.Add(Spec(1, 1, 100));
  scheduler.Add(Spec(2, 1, 100));
  scheduler.Apply(scheduler.MakePlan());
  scheduler.Add(Spec(3, 1000, 1, 0, 5));
  for (int step = 0; step < 10; ++step) {
    const Plan plan = scheduler.MakePlan();
    EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{1, 2, 3}));
    EXPECT_EQ(plan.num_tokens, 66);
    scheduler.Apply(plan);
  }
}

int32_t PromptTokens(const Plan& plan) {
  int32_t tokens = 0;
  for (const PlanEntry& entry : plan.entries) tokens += entry.prefill ? entry.num_tokens : 0;
  return tokens;
}

TEST(SchedulerTest, PromptsAreLimitedBesideDecodesOnly) {
  Scheduler scheduler(
      {.num_slots = 4, .max_batched_tokens = 4096, .prefill_tokens_beside_decodes = 128});
  scheduler.Add(Spec(1, 1000, 3));
  Plan plan = scheduler.MakePlan();
  EXPECT_EQ(PromptTokens(plan), 1000) << "nobody decodes";
  scheduler.Apply(plan);
  scheduler.Add(Spec(2, 1000, 1, 0, 5));
  for (int step = 0; step < 3; ++step) {
    plan = scheduler.MakePlan();
    EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{1, 2}));
    EXPECT_EQ(PromptTokens(plan), 128);
    scheduler.Apply(plan);
  }
  scheduler.Remove(1);
  EXPECT_EQ(PromptTokens(scheduler.MakePlan()), 1000 - 3 * 128);
}

TEST(SchedulerTest, PromptsThatWaitAreTakenInFasterUnlessTheLimitIsFixed) {
  for (const bool fixed : {false, true}) {
    Scheduler scheduler({.num_slots = 20,
                         .max_batched_tokens = 4096,
                         .prefill_tokens_beside_decodes = 128,
                         .prefill_tokens_fixed = fixed});
    scheduler.Add(Spec(1, 1, 1'000'000));
    scheduler.Apply(scheduler.MakePlan());
    for (int i = 0; i < 16; ++i) scheduler.Add(Spec(100 + i, 2048, 0, 0, i));
    int64_t left = 16 * 2048;
    int steps = 0, most = 0;
    for (; left > 0; ++steps) {
      const Plan plan = scheduler.MakePlan();
      EXPECT_EQ(plan.entries[0].id, 1u) << "the decode keeps its pace";
      const int tokens = PromptTokens(plan);
      EXPECT_GE(tokens, std::min<int64_t>(left, 128));
      most = std::max(most, tokens);
      left -= tokens;
      scheduler.Apply(plan);
    }
    EXPECT_EQ(most, fixed ? 128 : 16 * 2048 / kBacklogSteps);
    EXPECT_LE(steps, fixed ? 256 : 4 * kBacklogSteps);
  }
}

TEST(SchedulerTest, ShortPromptsWaitForCompanyBesideDecodes) {
  constexpr uint64_t kInterval = 8;
  Scheduler scheduler({.num_slots = 8,
                       .max_batched_tokens = 4096,
                       .prefill_tokens_beside_decodes = 128,
                       .prompt_interval = kInterval});
  scheduler.Add(Spec(1, 1, 1000));
  scheduler.Apply(scheduler.MakePlan());
  // One prompt of 16 tokens arrives before every other step.
  for (uint64_t step = 0; step < 3 * kInterval; ++step) {
    if (step % 2 == 0) scheduler.Add(Spec(100 + step, 16, 0, 0, static_cast<int>(step)));
    const Plan plan = scheduler.MakePlan();
    EXPECT_EQ(plan.entries[0].id, 1u) << "the decode keeps its pace";
    const bool its_turn = (step + 1) % kInterval == 0;  // counted from the first step
    EXPECT_EQ(PromptTokens(plan), its_turn ? 16 * kInterval / 2 : 0) << step;
    scheduler.Apply(plan);
    for (const PlanEntry& entry : plan.entries) {
      if (entry.prefill) scheduler.Remove(entry.id);
    }
  }
  scheduler.Add(Spec(2, 200, 0, 0, 50));
  EXPECT_EQ(PromptTokens(scheduler.MakePlan()), 128) << "enough to be worth a step at once";
  scheduler.Remove(1);
  EXPECT_EQ(PromptTokens(scheduler.MakePlan()), 200 - 128) << "nobody decodes";
}

TEST(SchedulerTest, PromptsWithoutAFreeSlotDoNotCount) {
  Scheduler scheduler(
      {.num_slots = 2, .max_batched_tokens = 4096, .prefill_tokens_beside_decodes = 128});
  scheduler.Add(Spec(1, 1, 1000));
  scheduler.Add(Spec(2, 1, 1000));
  scheduler.Apply(scheduler.MakePlan());
  for (int i = 0; i < 50; ++i) scheduler.Add(Spec(100 + i, 2048, 0, 0, i));
  scheduler.Remove(2);
  EXPECT_EQ(PromptTokens(scheduler.MakePlan()), 128);
}

TEST(SchedulerTest, FirstComeFirstServedWithinAPriority) {
  Scheduler scheduler({.num_slots = 1, .max_batched_tokens = 8});
  scheduler.Add(Spec(1, 1, 0, 0, 20));
  scheduler.Add(Spec(2, 1, 0, 0, 10));
  scheduler.Add(Spec(3, 1, 0, -1, 30));
  std::vector<SequenceId> order;
  for (int i = 0; i < 3; ++i) {
    const Plan plan = scheduler.MakePlan();
    ASSERT_EQ(plan.entries.size(), 1u);
    order.push_back(plan.entries[0].id);
    scheduler.Apply(plan);
    scheduler.Remove(plan.entries[0].id);
  }
  EXPECT_EQ(order, (std::vector<SequenceId>{3, 2, 1}));
}

TEST(SchedulerTest, WaitingOutweighsPriorityAfterOneSecondALevel) {
  Scheduler scheduler({.num_slots = 1, .max_batched_tokens = 8});
  scheduler.Add(Spec(1, 1, 0, 1, 0));
  scheduler.Add(Spec(2, 1, 0, 0, 999));
  scheduler.Add(Spec(3, 1, 0, 0, 1001));
  EXPECT_EQ(Ids(scheduler.MakePlan()), (std::vector<SequenceId>{2}));
  scheduler.Remove(2);
  EXPECT_EQ(Ids(scheduler.MakePlan()), (std::vector<SequenceId>{1}));
}

TEST(SchedulerTest, PreemptsALowerClassAndBringsItBack) {
  Scheduler scheduler({.num_slots = 1, .max_batched_tokens = 8});
  scheduler.Add(Spec(1, 1, 10, 5, 0));
  scheduler.Apply(scheduler.MakePlan());
  scheduler.Apply(scheduler.MakePlan());
  scheduler.Add(Spec(2, 2, 0, 0, 100));
  Plan plan = scheduler.MakePlan();
  EXPECT_EQ(plan.preempted, (std::vector<std::pair<SequenceId, int32_t>>{{1, 0}}));
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{2}));
  EXPECT_TRUE(plan.entries[0].first);
  scheduler.Apply(plan);
  scheduler.Remove(2);
  plan = scheduler.MakePlan();
  ASSERT_EQ(Ids(plan), (std::vector<SequenceId>{1}));
  EXPECT_TRUE(plan.entries[0].first) << "its state must be restored";
  EXPECT_FALSE(plan.entries[0].prefill);
}

TEST(SchedulerTest, PreemptsEvenWhenDecodesFillTheBudget) {
  Scheduler scheduler({.num_slots = 2, .max_batched_tokens = 2});
  scheduler.Add(Spec(1, 1, 100, 5, 0));
  scheduler.Add(Spec(2, 1, 100, 6, 0));
  scheduler.Apply(scheduler.MakePlan());
  scheduler.Apply(scheduler.MakePlan());
  scheduler.Add(Spec(3, 1, 0, 0, 100));
  const Plan plan = scheduler.MakePlan();
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{1, 3}));
}

TEST(SchedulerTest, EqualsAreNeverPreempted) {
  Scheduler scheduler({.num_slots = 1, .max_batched_tokens = 8});
  scheduler.Add(Spec(1, 1, 10, 0, 50));
  scheduler.Apply(scheduler.MakePlan());
  scheduler.Add(Spec(2, 1, 10, 0, 0));
  EXPECT_EQ(Ids(scheduler.MakePlan()), (std::vector<SequenceId>{1}));
}

TEST(SchedulerTest, BranchesTakeTheirPrefixsSlotAndFreeOnes) {
  Scheduler scheduler({.num_slots = 3, .max_batched_tokens = 8});
  scheduler.Add(Spec(1, 2, 0));
  scheduler.Apply(scheduler.MakePlan());
  const std::vector<SequenceSpec> branches = {Spec(2, 1, 5), Spec(3, 1, 5), Spec(4, 1, 5),
                                              Spec(5, 1, 5)};
  EXPECT_EQ(scheduler.Fork(1, branches), (std::vector<int32_t>{0, 1, 2, -1}));
  EXPECT_EQ(scheduler.num_free_slots(), 0);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  Plan plan = scheduler.MakePlan();
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{2, 3, 4}));
  for (const PlanEntry& entry : plan.entries) EXPECT_TRUE(entry.first && entry.ends_prefill);
  scheduler.Apply(plan);
  scheduler.Remove(3);
  plan = scheduler.MakePlan();
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{2, 4, 5}));
  EXPECT_EQ(plan.entries[2].slot, 1);
}

TEST(SchedulerTest, BranchesLeaveFreeSlotsToThoseBeforeThem) {
  Scheduler scheduler({.num_slots = 3, .max_batched_tokens = 8});
  scheduler.Add(Spec(1, 2, 0, 1));
  scheduler.Apply(scheduler.MakePlan());
  scheduler.Add(Spec(2, 2, 0, 0));  // arrives before the prefix has ended
  const std::vector<SequenceSpec> branches = {Spec(3, 1, 5, 1), Spec(4, 1, 5, 1), Spec(5, 1, 5, 1)};
  EXPECT_EQ(scheduler.Fork(1, branches), (std::vector<int32_t>{0, 1, -1}));
  const Plan plan = scheduler.MakePlan();
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{2, 3, 4}));
  EXPECT_TRUE(plan.preempted.empty());
}

TEST(SchedulerTest, ABranchIsSavedIfItLosesItsSlotBeforeItsFirstStep) {
  Scheduler scheduler({.num_slots = 1, .max_batched_tokens = 8});
  scheduler.Add(Spec(1, 2, 0, 5));
  scheduler.Apply(scheduler.MakePlan());
  const std::vector<SequenceSpec> branches = {Spec(2, 1, 5, 5), Spec(3, 1, 5, 5)};
  EXPECT_EQ(scheduler.Fork(1, branches), (std::vector<int32_t>{0, -1}));
  scheduler.Add(Spec(4, 1, 0, 0));
  Plan plan = scheduler.MakePlan();
  EXPECT_EQ(plan.preempted, (std::vector<std::pair<SequenceId, int32_t>>{{2, 0}}));
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{4}));
  scheduler.Apply(plan);
  scheduler.Remove(4);
  plan = scheduler.MakePlan();
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{2}));
  EXPECT_TRUE(plan.entries[0].first);
}

TEST(SchedulerTest, HostTokensAreWaitedFor) {
  Scheduler scheduler({.num_slots = 2, .max_batched_tokens = 8});
  SequenceSpec spec = Spec(1, 1, 10);
  spec.needs_host_token = true;
  scheduler.Add(spec);
  const Plan first = scheduler.MakePlan();
  EXPECT_TRUE(scheduler.MakePlan().entries.empty());
  scheduler.Apply(first);
  EXPECT_EQ(scheduler.MakePlan().entries.size(), 1u);
}

// Random workloads, checked step by step: budget, slots, order of chunks, no starvation.
TEST(SchedulerTest, RandomWorkloads) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    const SchedulerOptions options{.num_slots = pick(1, 6),
                                   .max_batched_tokens = pick(1, 40),
                                   .chunk_alignment = pick(1, 16),
                                   .prefill_tokens_beside_decodes = std::max(0, pick(-10, 10)),
                                   .prefill_tokens_fixed = pick(0, 1) == 1,
                                   .prompt_interval = static_cast<uint64_t>(pick(1, 5))};
    Scheduler scheduler(options);
    struct Track {
      SequenceSpec spec;
      int64_t prefilled = 0, decoded = 0;
      int32_t slot = -1;
      bool started = false;  // in this slot
      int64_t added_at = 0;
    };
    std::map<SequenceId, Track> live;
    SequenceId next = 1;
    int64_t completed = 0, added = 0;
    for (int64_t step = 0; step < 3000 && (step < 300 || !live.empty()); ++step) {
      if (step < 300 && pick(0, 2) == 0) {
        SequenceSpec spec = Spec(next, pick(1, 60), pick(0, 20), pick(-2, 2), step);
        scheduler.Add(spec);
        live[next] = {spec, 0, 0, -1, false, step};
        ++next;
        ++added;
      }
      if (!live.empty() && pick(0, 30) == 0) {
        auto it = live.begin();
        std::advance(it, pick(0, static_cast<int>(live.size()) - 1));
        scheduler.Remove(it->first);
        live.erase(it);
        ++completed;
      }
      const Plan plan = scheduler.MakePlan();
      for (const auto& [id, slot] : plan.preempted) {
        ASSERT_EQ(live.at(id).slot, slot);
        live.at(id).slot = -1;
        live.at(id).started = false;
      }
      ASSERT_FALSE(plan.entries.empty() && !live.empty()) << "stalled, seed " << seed;
      std::map<int32_t, int> slots;
      int32_t tokens = 0;
      for (const PlanEntry& entry : plan.entries) {
        Track& track = live.at(entry.id);
        tokens += entry.num_tokens;
        ASSERT_EQ(++slots[entry.slot], 1);
        ASSERT_LT(entry.slot, options.num_slots);
        ASSERT_EQ(entry.first, !track.started);
        if (track.slot >= 0) {
          ASSERT_EQ(entry.slot, track.slot);
        }
        track.slot = entry.slot;
        track.started = true;
        if (entry.prefill) {
          track.prefilled += entry.num_tokens;
          ASSERT_LE(track.prefilled, track.spec.num_prefill_tokens);
          ASSERT_EQ(entry.ends_prefill, track.prefilled == track.spec.num_prefill_tokens);
        } else {
          ASSERT_EQ(entry.num_tokens, 1);
          ASSERT_EQ(track.prefilled, track.spec.num_prefill_tokens);
          ASSERT_LE(++track.decoded, track.spec.num_decode_steps);
        }
      }
      ASSERT_EQ(tokens, plan.num_tokens);
      ASSERT_LE(tokens, options.max_batched_tokens);
      scheduler.Apply(plan);
      for (const PlanEntry& entry : plan.entries) {
        const Track track = live.at(entry.id);
        if (track.prefilled < track.spec.num_prefill_tokens ||
            track.decoded < track.spec.num_decode_steps) {
          continue;
        }
        live.erase(entry.id);
        ++completed;
        if (step >= 300 || pick(0, 3) > 0) {
          scheduler.Remove(entry.id);
          continue;
        }
        std::vector<SequenceSpec> branches(pick(1, 5), track.spec);
        for (SequenceSpec& spec : branches) {
          spec.id = next++;
          spec.num_prefill_tokens = pick(1, 5);
        }
        const std::vector<int32_t> slots = scheduler.Fork(entry.id, branches);
        ASSERT_EQ(slots[0], entry.slot);
        for (size_t i = 0; i < slots.size(); ++i) {
          for (const auto& [id, other] : live) ASSERT_TRUE(slots[i] < 0 || other.slot != slots[i]);
          live[branches[i].id] = {branches[i], 0, 0, slots[i], false, step};
          ++added;
        }
      }
    }
    EXPECT_TRUE(live.empty()) << "starved, seed " << seed;
    EXPECT_EQ(completed, added);
    EXPECT_EQ(scheduler.num_free_slots(), options.num_slots);
    EXPECT_EQ(scheduler.num_running() + scheduler.num_waiting(), 0);
  }
}

}  // namespace
}  // namespace hgrn2
