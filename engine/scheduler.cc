#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace hgrn2 {

Scheduler::Scheduler(const SchedulerOptions& options) : options_(options) {
  HGRN2_CHECK(options.num_slots >= 1 && options.max_batched_tokens >= 1);
  options_.chunk_alignment = std::max(
      1, std::min(options.chunk_alignment, options.max_batched_tokens - options.num_slots + 1));
  for (int32_t slot = options.num_slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::Add(const SequenceSpec& spec) {
  HGRN2_CHECK(spec.num_prefill_tokens >= 1 && spec.num_decode_steps >= 0);
  Entry entry;
  entry.spec = spec;
  entry.key = {(spec.arrival.time_since_epoch() + spec.priority * kPriorityStep).count(), spec.id};
  const bool inserted = entries_.emplace(spec.id, entry).second;
  HGRN2_CHECK(inserted, "sequence id used twice");
  Wait(entry);
}

void Scheduler::Wait(const Entry& entry) {
  waiting_.insert(entry.key);
  waiting_prompt_tokens_ += entry.PromptLeft();
}

void Scheduler::StopWaiting(const Entry& entry) {
  waiting_.erase(entry.key);
  waiting_prompt_tokens_ -= entry.PromptLeft();
}

void Scheduler::Run(Entry& entry, int32_t slot) {
  StopWaiting(entry);
  entry.slot = slot;
  running_.insert(entry.key);
}

std::vector<int32_t> Scheduler::Fork(SequenceId parent, std::span<const SequenceSpec> branches) {
  const auto it = entries_.find(parent);
  HGRN2_CHECK(it != entries_.end() && it->second.slot >= 0 && !branches.empty());
  Remove(parent);  // its slot is on top of the free ones
  for (const SequenceSpec& spec : branches) Add(spec);
  const auto first = waiting_.find(entries_.at(branches[0].id).key);
  const int64_t before = std::distance(waiting_.begin(), first);
  const int64_t can_start = std::max<int64_t>(1, std::ssize(free_slots_) - before);
  std::vector<int32_t> slots(branches.size(), -1);
  for (int64_t i = 0; i < std::min(can_start, std::ssize(branches)); ++i) {
    Entry& entry = entries_.at(branches[i].id);
    slots[i] = free_slots_.back();
    free_slots_.pop_back();
    Run(entry, slots[i]);
    entry.has_state = true;
  }
  return slots;
}

void Scheduler::Remove(SequenceId id) {
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  const Entry& entry = it->second;
  if (entry.slot >= 0) {
    running_.erase(entry.key);
    free_slots_.push_back(entry.slot);
  } else {
    StopWaiting(entry);
  }
  entries_.erase(it);
}

void Scheduler::AddToPlan(Entry& entry, int32_t num_tokens, Plan* plan) {
  const bool prefill = entry.Prefilling();
  if (prefill) {
    entry.prefilled += num_tokens;
  } else {
    entry.decoded += 1;
  }
  plan->entries.push_back({entry.spec.id, entry.slot, num_tokens, !entry.started, prefill,
                           prefill && !entry.Prefilling()});
  plan->num_tokens += num_tokens;
  entry.started = entry.has_state = true;
  entry.in_flight += 1;
  entry.last_step = step_;
}

bool Scheduler::ReadyToDecode(const Entry& entry) const {
  return !entry.Prefilling() && entry.decoded < entry.spec.num_decode_steps &&
         !(entry.spec.needs_host_token && entry.in_flight > 0);
}

int64_t Scheduler::CountReadyToDecode() const {
  int64_t count = 0;
  for (const Key& key : running_) count += ReadyToDecode(entries_.at(key.second)) ? 1 : 0;
  return count;
}

int64_t Scheduler::ReadyPromptTokens() const {
  int64_t tokens = 0;
  for (const Key& key : running_) tokens += entries_.at(key.second).PromptLeft();
  // Those that a free slot waits for, if all are of about the same length.
  const auto waiting = static_cast<int64_t>(waiting_.size());
  const int64_t can_start = std::min<int64_t>(waiting, std::ssize(free_slots_));
  return can_start > 0 ? tokens + waiting_prompt_tokens_ / waiting * can_start : tokens;
}

int64_t Scheduler::PromptBudget(int64_t decodes) const {
  const int64_t left = options_.max_batched_tokens - decodes;
  if (decodes == 0 || options_.prefill_tokens_beside_decodes == 0) return left;
  int64_t tokens = options_.prefill_tokens_beside_decodes;
  const int64_t ready = ReadyPromptTokens();
  if (ready < tokens && step_ - last_prompt_step_ < options_.prompt_interval) return 0;
  if (!options_.prefill_tokens_fixed) tokens = std::max(tokens, ready / kBacklogSteps);
  const int64_t align = options_.chunk_alignment;
  return std::min((tokens + align - 1) / align * align, left);
}

int32_t Scheduler::Preempt(const Entry& urgent, bool decoding_only, int64_t* budget, Plan* plan) {
  for (auto it = running_.rbegin(); it != running_.rend() && *it > urgent.key; ++it) {
    Entry& victim = entries_.at(it->second);
    // What has all its steps planned gives its slot back by itself in a moment.
    const bool ending = !victim.Prefilling() && victim.decoded >= victim.spec.num_decode_steps;
    if (victim.spec.priority <= urgent.spec.priority || ending) continue;
    if (ReadyToDecode(victim)) {
      *budget += 1;
    } else if (decoding_only) {
      continue;
    }
    const int32_t slot = victim.slot;
    if (victim.has_state) plan->preempted.emplace_back(victim.spec.id, slot);
    victim.slot = -1;
    victim.started = victim.has_state = false;
    Wait(victim);
    running_.erase(victim.key);
    return slot;
  }
  return -1;
}

// `budget`: tokens left for prompts once every running decode has its one.
void Scheduler::Admit(int64_t budget, Plan* plan) {
  auto running = running_.begin();
  while (!waiting_.empty()) {
    const Key key = *waiting_.begin();
    // Running prompts of smaller keys are served before the newcomer.
    for (; running != running_.end() && *running < key; ++running) {
      const Entry& entry = entries_.at(running->second);
      budget -= entry.PromptLeft();
    }
    Entry& entry = entries_.at(key.second);
    int32_t slot = -1;
    if (!free_slots_.empty()) {
      if (budget <= 0) return;
      slot = free_slots_.back();
      free_slots_.pop_back();
    } else {
      slot = Preempt(entry, budget <= 0, &budget, plan);
      if (slot < 0) return;
    }
    Run(entry, slot);
    running = running_.upper_bound(key);
    budget -= std::max<int64_t>(1, entry.PromptLeft());
  }
}

void Scheduler::PlanDecodes(Plan* plan, int32_t* budget) {
  std::vector<Entry*> ready;
  ready.reserve(running_.size());
  for (const Key& key : running_) {
    Entry& entry = entries_.at(key.second);
    if (ReadyToDecode(entry)) ready.push_back(&entry);
  }
  if (static_cast<int64_t>(ready.size()) > *budget) {
    std::stable_sort(ready.begin(), ready.end(),
                     [](const Entry* a, const Entry* b) { return a->last_step < b->last_step; });
    ready.resize(*budget);
  }
  for (Entry* entry : ready) AddToPlan(*entry, 1, plan);
  *budget -= static_cast<int32_t>(ready.size());
}

void Scheduler::PlanPrefills(Plan* plan, int32_t budget) {
  for (const Key& key : running_) {
    if (budget <= 0) return;
    Entry& entry = entries_.at(key.second);
    if (!entry.Prefilling()) continue;
    const int64_t remaining = entry.PromptLeft();
    auto num_tokens = static_cast<int32_t>(std::min<int64_t>(remaining, budget));
    if (num_tokens < remaining) num_tokens -= num_tokens % options_.chunk_alignment;
    if (num_tokens == 0) continue;
    AddToPlan(entry, num_tokens, plan);
    last_prompt_step_ = step_;
    budget -= num_tokens;
  }
}

Plan Scheduler::MakePlan() {
  Plan plan;
  ++step_;
  int32_t budget = options_.max_batched_tokens;
  const int64_t decodes = CountReadyToDecode();
  const int64_t prompts = PromptBudget(decodes);
  Admit(prompts, &plan);
  PlanDecodes(&plan, &budget);
  // Pre-emption may have ended decodes; who came in their place gets their tokens, or the whole
  // step if it ended all.
  const int64_t freed = decodes - std::ssize(plan.entries);
  const int64_t most = plan.entries.empty() ? budget : std::min<int64_t>(budget, prompts + freed);
  PlanPrefills(&plan, static_cast<int32_t>(most));
  return plan;
}

void Scheduler::Apply(const Plan& plan) {
  for (const PlanEntry& planned : plan.entries) {
    const auto it = entries_.find(planned.id);
    if (it != entries_.end()) it->second.in_flight -= 1;
  }
}

}  // namespace hgrn2
