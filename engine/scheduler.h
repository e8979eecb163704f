// Decides which sequences run in the next step and with how many tokens. Pure: no device, no clock,
// no threads; the same calls give the same plans.
//
// Order. Sequences are ordered by `arrival + priority * kPriorityStep`: first come, first served
// within a priority, and one level of priority is worth one second of waiting. The key never
// changes, so nothing starves: whatever arrives later than the key's time comes after it.
//
// A step. Every decoding sequence first gets its one token (least recently planned first, should
// the budget be smaller than their number); what is left of max_batched_tokens goes to prompts in
// key order. Beside decodes prompts get less where prefill_tokens_beside_decodes is set, so that
// running streams keep their pace: that many, or a part of all prompt tokens that wait, if that is
// more. Prompts then enter at the smoothed rate at which they arrive. Where a step that takes in
// few prompt tokens costs nearly as much as one that takes in many, fewer than that wait for
// company, up to prompt_interval - 1 steps. Prompts are cut at multiples
// of chunk_alignment from their start: where a backend rounds states at such multiples only, a
// prompt's result does not depend on how it was cut, and so not on the other sequences. A waiting
// sequence takes a free slot, or that of the running sequence with the greatest key whose priority
// value is greater (pre-emption: one state copy); a running sequence never loses its slot within
// its own priority.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace hgrn2 {

using SequenceId = uint64_t;

inline constexpr Duration kPriorityStep = std::chrono::seconds(1);
inline constexpr int32_t kPromptChunkAlignment = 64;
// Beside decodes, prompts that wait are taken in within about this many steps.
inline constexpr int32_t kBacklogSteps = 32;

struct SchedulerOptions {
  int32_t num_slots = 1;
  int32_t max_batched_tokens = 1;
  // Lowered, if it must be, so that a prompt gets on beside num_slots - 1 decodes.
  int32_t chunk_alignment = kPromptChunkAlignment;
  // Prompt tokens of a step that also decodes. 0: no limit but max_batched_tokens.
  int32_t prefill_tokens_beside_decodes = 0;
  // It is a limit, however many prompts wait.
  bool prefill_tokens_fixed = false;
  // Beside decodes, steps from one that takes in prompts to the next, unless that many tokens wait.
  uint64_t prompt_interval = 1;
};

struct SequenceSpec {
  SequenceId id = 0;
  int32_t priority = 0;
  TimePoint arrival;
  int64_t num_prefill_tokens = 1;  // >= 1
  // Tokens to decode after the prefill's last step, one per step. 0: it ends with its prefill.
  int64_t num_decode_steps = 0;
  // Each decode step needs the previous step's token on the host first.
  bool needs_host_token = false;
};

struct PlanEntry {
  SequenceId id;
  int32_t slot;
  int32_t num_tokens;
  bool first;         // first step in this slot: its state and sampling are to be prepared
  bool prefill;       // tokens of the prompt, else one decoded token
  bool ends_prefill;  // the prompt's last chunk
};

struct Plan {
  std::vector<std::pair<SequenceId, int32_t>> preempted;  // save these slots first
  std::vector<PlanEntry> entries;
  int32_t num_tokens = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // REQUIRES: a new id.
  void Add(const SequenceSpec& spec);
  // Finished or cancelled: its slot is free for the next plan, though a step with it may be pending
  // (steps run in order). No-op for an unknown id.
  void Remove(SequenceId id);

  // `branches` take the place of `parent`, whose last step has been applied: the first gets its
  // slot, the others free slots that nothing before them in order waits for. Their slots, -1 for
  // those that wait. A branch with a slot has its state there from now on: it is saved if it is
  // pre-empted, also before its first step. REQUIRES: parent has a slot; one branch or more, with
  // new ids in ascending order, of the same priority and arrival.
  std::vector<int32_t> Fork(SequenceId parent, std::span<const SequenceSpec> branches);

  // The next step, possibly empty. Counts its tokens as fed.
  Plan MakePlan();
  // The results of this plan's step are on the host. Plans are applied in order.
  void Apply(const Plan& plan);

  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int32_t num_free_slots() const { return static_cast<int32_t>(free_slots_.size()); }
  const SchedulerOptions& options() const { return options_; }

 private:
  using Key = std::pair<int64_t, SequenceId>;  // virtual arrival in ns, then id
  struct Entry {
    SequenceSpec spec;
    Key key;
    int32_t slot = -1;       // >= 0: running
    bool started = false;    // had a step in this slot
    bool has_state = false;  // the slot holds its state
    int64_t prefilled = 0;   // planned so far
    int64_t decoded = 0;     // planned so far
    int32_t in_flight = 0;   // planned and not applied
    uint64_t last_step = 0;  // of its last plan

    bool Prefilling() const { return prefilled < spec.num_prefill_tokens; }
    int64_t PromptLeft() const { return spec.num_prefill_tokens - prefilled; }
  };

  bool ReadyToDecode(const Entry& entry) const;
  int64_t CountReadyToDecode() const;
  // Prompt tokens for a step with `decodes` decodes.
  int64_t PromptBudget(int64_t decodes) const;
  // Prompt tokens that could be fed now: of running prompts, and about those of the waiting that a
  // free slot is there for.
  int64_t ReadyPromptTokens() const;
  void Wait(const Entry& entry);
  void StopWaiting(const Entry& entry);
  void Run(Entry& entry, int32_t slot);
  void Admit(int64_t budget, Plan* plan);
  void PlanDecodes(Plan* plan, int32_t* budget);
  void PlanPrefills(Plan* plan, int32_t budget);
  // Frees the slot of the least urgent running sequence of a greater priority value than `urgent`
  // (a decoding one if `decoding_only`) and adds what that gives back to *budget. -1: there is
  // none.
  int32_t Preempt(const Entry& urgent, bool decoding_only, int64_t* budget, Plan* plan);
  void AddToPlan(Entry& entry, int32_t num_tokens, Plan* plan);

  SchedulerOptions options_;
  std::unordered_map<SequenceId, Entry> entries_;
  std::set<Key> waiting_;
  std::set<Key> running_;
  int64_t waiting_prompt_tokens_ = 0;
  std::vector<int32_t> free_slots_;  // a stack; lowest index on top at the start
  uint64_t step_ = 0;
  uint64_t last_prompt_step_ = 0;
};

}  // namespace hgrn2
