#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <limits>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>

#include "base/bounded_queue.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"

namespace hgrn2 {

uint64_t ChoiceSeed(uint64_t seed, int32_t choice) {
  return choice == 0 ? seed : PositionKey(seed ^ 0xC0DEC0DEC0DEC0DEull, choice);
}

namespace {

constexpr Duration kHeartbeat = std::chrono::milliseconds(100);

struct SubmitCommand {
  std::unique_ptr<ActiveRequest> request;
};
struct CancelCommand {
  RequestHandle handle;
};
struct StopChoiceCommand {
  RequestHandle handle;
  int32_t choice;
};
struct AbortAllCommand {};
struct ExitCommand {};
using Command =
    std::variant<SubmitCommand, CancelCommand, StopChoiceCommand, AbortAllCommand, ExitCommand>;

class EngineImpl final : public Engine {
 public:
  EngineImpl(std::unique_ptr<Backend> backend, const EngineOptions& options,
             const SchedulerOptions& scheduler_options)
      : options_(options),
        clock_(options.clock != nullptr ? *options.clock : Clock::Real()),
        observer_(options.observer != nullptr ? *options.observer : no_observer_),
        backend_(std::move(backend)),
        info_(backend_->info()),
        commands_(std::numeric_limits<size_t>::max()),
        scheduler_(scheduler_options) {
    info_.max_batched_tokens = scheduler_options.max_batched_tokens;
    if (scheduler_.options().chunk_alignment < kPromptChunkAlignment) {
      LOG_WARNING(
          "max-num-batched-tokens {} leaves less than {} tokens for a prompt beside {} decodes: "
          "where prompts are cut depends on the load, and so do the last digits of results",
          info_.max_batched_tokens, kPromptChunkAlignment, info_.num_slots - 1);
    }
    Beat();
    if (!options_.manual_stepping) thread_ = std::thread([this] { Loop(); });
  }

  ~EngineImpl() override {
    if (thread_.joinable()) {
      commands_.Push(ExitCommand{});
      thread_.join();
    } else {
      AbortAll();
    }
  }

  absl::StatusOr<RequestHandle> Submit(EngineRequest request) override;
  void Cancel(RequestHandle handle) override { commands_.Push(CancelCommand{handle}); }
  void StopChoice(RequestHandle handle, int32_t choice) override {
    commands_.Push(StopChoiceCommand{handle, choice});
  }
  bool Drain(Duration timeout) override;
  EngineStats Stats() const override;
  const BackendInfo& backend_info() const override { return info_; }
  void SetFatalErrorCallback(std::function<void(const absl::Status&)> done) override {
    MutexLock lock(&mu_);
    on_fatal_ = std::move(done);
  }
  bool StepOnce() override {
    HGRN2_CHECK(options_.manual_stepping);
    return Turn(Duration::zero());
  }

 private:
  struct PendingStep {
    Plan plan;
    TimePoint launched;
    double plan_seconds = 0;
  };

  void Loop() {
    while (!exit_) Turn(kHeartbeat);
    AbortAll();
  }
  // One iteration; waits up to `idle_wait` for a command if there is nothing to run.
  bool Turn(Duration idle_wait);
  void Handle(Command command);
  void Start(std::unique_ptr<ActiveRequest> request);
  void ExpireDeadlines(TimePoint now);
  Duration IdleWait(Duration idle_wait) const;

  absl::Status Launch(Plan plan, TimePoint planned_at);
  absl::Status SavePreempted(const Plan& plan);
  absl::Status PrepareSlot(const PlanEntry& entry, Sequence& sequence, StepSequence* step);
  absl::Status CollectOldest();
  absl::Status Apply(const PlanEntry& entry, SequenceResult& result, TimePoint now);
  absl::Status FinishPrefill(Sequence& sequence, const PlanEntry& entry);
  absl::Status StartBranches(const Sequence& prefix, int32_t slot);
  absl::StatusOr<StateBlob> SaveState(int32_t slot);
  void TakeToken(Sequence& sequence, TokenScore token, TimePoint now);
  void FinishChoice(Sequence& sequence, FinishReason reason, int32_t stop_token);
  void EndSequence(SequenceId id);
  // Takes the sequence in; what the scheduler is still to be told.
  SequenceSpec TakeSequence(std::unique_ptr<Sequence> sequence);
  void EndIfComplete(RequestHandle handle);
  void EndRequest(RequestHandle handle, const absl::Status& status);
  void AbortAll();
  void Fail(const absl::Status& status);
  void PublishStats();
  void Beat() {
    heartbeat_.store(Clock::Real().Now().time_since_epoch().count(), std::memory_order_relaxed);
  }

  EngineObserver no_observer_;
  const EngineOptions options_;
  const Clock& clock_;
  EngineObserver& observer_;

  // Engine thread only.
  std::unique_ptr<Backend> backend_;
  BackendInfo info_;
  BoundedQueue<Command> commands_;
  Scheduler scheduler_;
  std::unordered_map<RequestHandle, std::unique_ptr<ActiveRequest>> requests_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::set<std::pair<TimePoint, RequestHandle>> deadlines_;
  std::deque<PendingStep> pending_;
  SequenceId next_sequence_ = 1;
  StepBatch batch_;
  StepResult result_;
  bool exit_ = false;

  // Crossing points.
  std::atomic<RequestHandle> next_handle_{1};
  std::atomic<int64_t> heartbeat_{0};
  std::atomic<int32_t> num_running_{0}, num_waiting_sequences_{0}, slots_used_{0};
  std::atomic<int32_t> num_queued_{0};  // submitted requests without a first step
  std::atomic<uint64_t> num_steps_{0};
  mutable Mutex mu_;
  CondVar idle_;
  int64_t num_active_ ABSL_GUARDED_BY(mu_) = 0;  // submitted and not ended
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool failed_ ABSL_GUARDED_BY(mu_) = false;
  std::function<void(const absl::Status&)> on_fatal_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;  // last: uses everything above
};

absl::StatusOr<RequestHandle> EngineImpl::Submit(EngineRequest request) {
  const TimePoint now = clock_.Now();
  if (request.deadline <= now) {
    observer_.OnRejected(EngineObserver::RejectReason::kDeadline);
    return absl::DeadlineExceededError("the deadline had passed when the request arrived");
  }
  const RequestHandle handle = next_handle_.fetch_add(1, std::memory_order_relaxed);
  auto active = std::make_unique<ActiveRequest>(handle, std::move(request), now);
  {
    MutexLock lock(&mu_);
    if (failed_) return absl::UnavailableError("the device failed; this server is shutting down");
    if (draining_) {
      observer_.OnRejected(EngineObserver::RejectReason::kDraining);
      return absl::UnavailableError("the server is draining and takes no new requests");
    }
    if (num_queued_.load(std::memory_order_relaxed) >= options_.max_num_queued_reqs) {
      observer_.OnRejected(EngineObserver::RejectReason::kQueueFull);
      return MakeStatus(absl::StatusCode::kResourceExhausted,
                        "the queue is full: {} requests are waiting (max-num-queued-reqs)",
                        options_.max_num_queued_reqs);
    }
    num_queued_.fetch_add(1, std::memory_order_relaxed);
    ++num_active_;
    // Inside the lock, so that nothing is queued behind the abort of a drain.
    commands_.Push(SubmitCommand{std::move(active)});
  }
  return handle;
}

bool EngineImpl::Drain(Duration timeout) {
  const TimePoint give_up = clock_.Now() + timeout;
  {
    MutexLock lock(&mu_);
    draining_ = true;
  }
  const auto active = [this] {
    MutexLock lock(&mu_);
    return num_active_ > 0;
  };
  if (options_.manual_stepping) {
    while (active() && clock_.Now() < give_up && StepOnce()) {
    }
    const bool clean = !active();
    Handle(AbortAllCommand{});
    return clean;
  }
  MutexLock lock(&mu_);
  while (num_active_ > 0 && clock_.Now() < give_up) {
    idle_.WaitFor(&mu_, std::min<Duration>(give_up - clock_.Now(), std::chrono::milliseconds(50)));
  }
  const bool clean = num_active_ == 0;
  if (!clean) commands_.Push(AbortAllCommand{});
  while (num_active_ > 0) idle_.WaitFor(&mu_, std::chrono::milliseconds(50));
  return clean;
}

EngineStats EngineImpl::Stats() const {
  EngineStats stats;
  stats.num_running = num_running_.load(std::memory_order_relaxed);
  stats.num_waiting = std::max(num_waiting_sequences_.load(std::memory_order_relaxed),
                               num_queued_.load(std::memory_order_relaxed));
  stats.slots_used = slots_used_.load(std::memory_order_relaxed);
  stats.num_slots = info_.num_slots;
  stats.num_steps = num_steps_.load(std::memory_order_relaxed);
  const auto beat = TimePoint(Duration(heartbeat_.load(std::memory_order_relaxed)));
  stats.seconds_since_heartbeat = ToSeconds(Clock::Real().Now() - beat);
  MutexLock lock(&mu_);
  stats.draining = draining_;
  stats.failed = failed_;
  return stats;
}

void EngineImpl::PublishStats() {
  num_running_.store(scheduler_.num_running(), std::memory_order_relaxed);
  num_waiting_sequences_.store(scheduler_.num_waiting(), std::memory_order_relaxed);
  slots_used_.store(info_.num_slots - scheduler_.num_free_slots(), std::memory_order_relaxed);
}

Duration EngineImpl::IdleWait(Duration idle_wait) const {
  if (deadlines_.empty() || idle_wait == Duration::zero()) return idle_wait;
  const Duration left = deadlines_.begin()->first - clock_.Now();
  return std::clamp(left, Duration(1), idle_wait);
}

bool EngineImpl::Turn(Duration idle_wait) {
  const bool idle = sequences_.empty() && pending_.empty();
  Beat();
  std::vector<Command> commands = commands_.PopAll(idle ? IdleWait(idle_wait) : Duration::zero());
  for (Command& command : commands) Handle(std::move(command));
  const TimePoint now = clock_.Now();
  ExpireDeadlines(now);

  Plan plan = scheduler_.MakePlan();
  const bool launches = !plan.entries.empty();
  absl::Status status;
  PublishStats();  // before the step: a device may take all its time inside Enqueue
  if (launches) status = Launch(std::move(plan), now);
  const bool full = static_cast<int32_t>(pending_.size()) >= info_.pipeline_depth;
  const bool collects = !pending_.empty() && (full || !launches);
  if (status.ok() && collects) status = CollectOldest();
  if (!status.ok()) Fail(status);
  return launches || collects || !commands.empty();
}

void EngineImpl::Handle(Command command) {
  if (auto* submit = std::get_if<SubmitCommand>(&command)) {
    Start(std::move(submit->request));
  } else if (const auto* cancel = std::get_if<CancelCommand>(&command)) {
    EndRequest(cancel->handle, absl::CancelledError("the request was cancelled"));
  } else if (const auto* stop = std::get_if<StopChoiceCommand>(&command)) {
    const auto it = requests_.find(stop->handle);
    if (it == requests_.end()) return;
    for (const SequenceId id : it->second->sequences) {
      Sequence& sequence = *sequences_.at(id);
      if (sequence.kind != SequenceKind::kChoice || sequence.index != stop->choice) continue;
      FinishChoice(sequence, FinishReason::kStop, -1);
      return;
    }
  } else if (std::holds_alternative<AbortAllCommand>(command)) {
    AbortAll();
  } else {
    exit_ = true;
  }
}

void EngineImpl::Start(std::unique_ptr<ActiveRequest> request) {
  const RequestHandle handle = request->handle;
  ActiveRequest& active = *request;
  requests_.emplace(handle, std::move(request));
  bool failed = false;
  {
    MutexLock lock(&mu_);
    failed = failed_;
  }
  if (failed) {
    EndRequest(handle, absl::UnavailableError("the device failed; this server is shutting down"));
    return;
  }
  if (active.spec.deadline != kInfiniteFuture) deadlines_.emplace(active.spec.deadline, handle);
  for (auto& sequence : FirstSequences(active)) scheduler_.Add(TakeSequence(std::move(sequence)));
}

SequenceSpec EngineImpl::TakeSequence(std::unique_ptr<Sequence> sequence) {
  sequence->id = next_sequence_++;
  SequenceSpec spec;
  spec.id = sequence->id;
  spec.priority = sequence->request->spec.priority;
  spec.arrival = sequence->request->submitted;
  spec.num_prefill_tokens = static_cast<int64_t>(sequence->feed.size());
  spec.num_decode_steps =
      sequence->kind == SequenceKind::kChoice ? sequence->request->spec.max_tokens - 1 : 0;
  spec.needs_host_token = sequence->request->has_multi_token_bad_words;
  sequence->request->sequences.push_back(sequence->id);
  sequences_.emplace(sequence->id, std::move(sequence));
  return spec;
}

void EngineImpl::ExpireDeadlines(TimePoint now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    EndRequest(deadlines_.begin()->second, absl::DeadlineExceededError("the deadline has passed"));
  }
}

absl::StatusOr<StateBlob> EngineImpl::SaveState(int32_t slot) {
  absl::StatusOr<StateBlob> blob = backend_->SaveState(slot);
  observer_.OnSnapshot("save", blob.ok());
  return blob;
}

absl::Status EngineImpl::SavePreempted(const Plan& plan) {
  for (const auto& [id, slot] : plan.preempted) {
    observer_.OnPreempted();
    ASSIGN_OR_RETURN(StateBlob blob, SaveState(slot));
    Sequence& sequence = *sequences_.at(id);
    sequence.state_in_slot = false;
    sequence.state = std::make_shared<const StateBlob>(std::move(blob));
  }
  return absl::OkStatus();
}

// First step of a sequence in this slot: its state and its sampling.
absl::Status EngineImpl::PrepareSlot(const PlanEntry& entry, Sequence& sequence,
                                     StepSequence* step) {
  HGRN2_CHECK(sequence.pending_samples == 0, "a sequence came back before its token");
  if (sequence.state_in_slot) {
    sequence.state_in_slot = false;
  } else if (sequence.state != nullptr) {
    const absl::Status status = backend_->RestoreState(entry.slot, *sequence.state);
    observer_.OnSnapshot("restore", status.ok());
    RETURN_IF_ERROR(status);
    sequence.state.reset();
  } else {
    step->reset_state = true;
  }
  if (sequence.kind != SequenceKind::kChoice) return absl::OkStatus();
  return backend_->ConfigureSlot(entry.slot, MakeSlotSampling(sequence));
}

absl::Status EngineImpl::Launch(Plan plan, TimePoint planned_at) {
  RETURN_IF_ERROR(SavePreempted(plan));
  batch_.Clear();
  for (const PlanEntry& entry : plan.entries) {
    Sequence& sequence = *sequences_.at(entry.id);
    ActiveRequest& request = *sequence.request;
    if (!request.scheduled) {
      request.scheduled = true;
      request.first_scheduled = planned_at;
      num_queued_.fetch_sub(1, std::memory_order_relaxed);
    }
    StepSequence step;
    step.slot = entry.slot;
    if (entry.first) RETURN_IF_ERROR(PrepareSlot(entry, sequence, &step));
    AppendTokens(entry, sequence, &step, &batch_);
    batch_.sequences.push_back(std::move(step));
  }
  const TimePoint launched = clock_.Now();
  pending_.push_back({std::move(plan), launched, ToSeconds(launched - planned_at)});
  num_steps_.fetch_add(1, std::memory_order_relaxed);
  return backend_->Enqueue(batch_);
}

absl::Status EngineImpl::CollectOldest() {
  PendingStep step = std::move(pending_.front());
  pending_.pop_front();
  RETURN_IF_ERROR(backend_->Collect(&result_));
  HGRN2_CHECK(result_.sequences.size() == step.plan.entries.size());
  scheduler_.Apply(step.plan);
  const TimePoint now = clock_.Now();
  EngineObserver::StepInfo info;
  info.num_sequences = static_cast<int32_t>(step.plan.entries.size());
  for (size_t i = 0; i < step.plan.entries.size(); ++i) {
    const PlanEntry& entry = step.plan.entries[i];
    (entry.prefill ? info.prefill_tokens : info.decode_tokens) += entry.num_tokens;
    RETURN_IF_ERROR(Apply(entry, result_.sequences[i], now));
  }
  info.plan_seconds = step.plan_seconds;
  info.device_seconds = ToSeconds(now - step.launched);
  info.apply_seconds = ToSeconds(clock_.Now() - now);
  PublishStats();
  observer_.OnStep(info);
  return absl::OkStatus();
}

absl::Status EngineImpl::Apply(const PlanEntry& entry, SequenceResult& result, TimePoint now) {
  const auto it = sequences_.find(entry.id);
  if (it == sequences_.end()) return absl::OkStatus();  // ended while the step was under way
  Sequence& sequence = *it->second;
  std::move(result.scores.begin(), result.scores.end(), std::back_inserter(sequence.scores));
  const bool sampled = result.sampled.token_id >= 0;
  if (sampled) sequence.pending_samples -= 1;
  if (entry.ends_prefill) {
    const SequenceKind kind = sequence.kind;
    RETURN_IF_ERROR(FinishPrefill(sequence, entry));
    if (kind != SequenceKind::kChoice) return absl::OkStatus();
  }
  if (sampled) TakeToken(sequence, std::move(result.sampled), now);
  return absl::OkStatus();
}

absl::Status EngineImpl::FinishPrefill(Sequence& sequence, const PlanEntry& entry) {
  ActiveRequest& request = *sequence.request;
  const SequenceId id = sequence.id;
  if (!request.prompt_done && sequence.kind != SequenceKind::kContinuation) {
    request.prompt_done = true;
    if (request.spec.prompt_logprobs >= 0) {
      request.spec.sink->OnPromptScores(std::move(sequence.scores));
    }
  }
  if (sequence.kind == SequenceKind::kPrefix) {
    RETURN_IF_ERROR(StartBranches(sequence, entry.slot));
  } else if (sequence.kind == SequenceKind::kContinuation) {
    request.spec.sink->OnContinuationScores(sequence.index, std::move(sequence.scores));
    const RequestHandle handle = request.handle;
    EndSequence(id);
    EndIfComplete(handle);
  }
  return absl::OkStatus();
}

// The prefix, whose state is in `slot`, ends; its branches go on from there. Only what finds no
// slot now needs a copy in host memory, and with it a wait for the steps in flight.
absl::Status EngineImpl::StartBranches(const Sequence& prefix, int32_t slot) {
  ActiveRequest& request = *prefix.request;
  const SequenceId prefix_id = prefix.id;
  std::vector<SequenceSpec> specs;
  for (auto& branch : BranchSequences(request)) specs.push_back(TakeSequence(std::move(branch)));
  const std::vector<int32_t> slots = scheduler_.Fork(prefix_id, specs);
  std::erase(request.sequences, prefix_id);
  sequences_.erase(prefix_id);
  std::shared_ptr<const StateBlob> blob;
  for (size_t i = 0; i < specs.size(); ++i) {
    Sequence& branch = *sequences_.at(specs[i].id);
    branch.state_in_slot = slots[i] >= 0;
    if (slots[i] < 0) {
      if (blob == nullptr) {
        ASSIGN_OR_RETURN(StateBlob saved, SaveState(slot));
        blob = std::make_shared<const StateBlob>(std::move(saved));
      }
      branch.state = blob;
    } else if (slots[i] != slot) {
      RETURN_IF_ERROR(backend_->CopyState(slot, slots[i]));
    }
  }
  return absl::OkStatus();
}

void EngineImpl::TakeToken(Sequence& sequence, TokenScore token, TimePoint now) {
  ActiveRequest& request = *sequence.request;
  if (sequence.generated.empty()) {
    observer_.OnFirstToken(ToSeconds(now - request.submitted));
    if (request.completion_tokens == 0) request.first_token = now;
  } else {
    observer_.OnInterTokenLatency(ToSeconds(now - sequence.last_token));
  }
  sequence.last_token = request.last_token = now;
  const int32_t id = token.token_id;
  sequence.generated.push_back(id);
  request.completion_tokens += 1;
  request.spec.sink->OnToken(sequence.index, std::move(token));
  if (std::binary_search(request.spec.stop_token_ids.begin(), request.spec.stop_token_ids.end(),
                         id)) {
    FinishChoice(sequence, FinishReason::kStop, id);
  } else if (static_cast<int32_t>(sequence.generated.size()) >= request.spec.max_tokens) {
    FinishChoice(sequence, FinishReason::kLength, -1);
  }
}

void EngineImpl::FinishChoice(Sequence& sequence, FinishReason reason, int32_t stop_token) {
  ActiveRequest& request = *sequence.request;
  if (sequence.index == 0) request.finish_reason = reason;
  request.spec.sink->OnChoiceDone(sequence.index, reason, stop_token);
  const RequestHandle handle = request.handle;
  EndSequence(sequence.id);
  EndIfComplete(handle);
}

void EngineImpl::EndSequence(SequenceId id) {
  const auto it = sequences_.find(id);
  std::erase(it->second->request->sequences, id);
  scheduler_.Remove(id);
  sequences_.erase(it);
}

void EngineImpl::EndIfComplete(RequestHandle handle) {
  if (requests_.at(handle)->sequences.empty()) EndRequest(handle, absl::OkStatus());
}

void EngineImpl::EndRequest(RequestHandle handle, const absl::Status& status) {
  const auto it = requests_.find(handle);
  if (it == requests_.end()) return;
  const std::unique_ptr<ActiveRequest> request = std::move(it->second);
  requests_.erase(it);
  for (const SequenceId id : request->sequences) {
    scheduler_.Remove(id);
    sequences_.erase(id);
  }
  deadlines_.erase({request->spec.deadline, handle});
  if (!request->scheduled) num_queued_.fetch_sub(1, std::memory_order_relaxed);
  PublishStats();

  const EngineObserver::FinishInfo info = Summarize(*request, status, clock_.Now());
  if (info.usage.prompt_tokens > 0 && request->prompt_done) {
    observer_.OnPrefilled(info.usage.prompt_tokens);
  }
  request->spec.sink->OnDone(status, info.usage, info.timing);
  observer_.OnFinished(info);
  MutexLock lock(&mu_);
  if (--num_active_ == 0) idle_.NotifyAll();
}

void EngineImpl::AbortAll() {
  for (Command& command : commands_.PopAll(Duration::zero())) Handle(std::move(command));
  while (!requests_.empty()) {
    EndRequest(requests_.begin()->first,
               absl::UnavailableError("the server shut down before the request ended"));
  }
}

void EngineImpl::Fail(const absl::Status& status) {
  LOG_ERROR("device error, failing {} requests in flight: {}", requests_.size(),
            std::string(status.message()));
  std::function<void(const absl::Status&)> on_fatal;
  {
    MutexLock lock(&mu_);
    failed_ = true;
    on_fatal = on_fatal_;
  }
  pending_.clear();
  while (!requests_.empty()) {
    EndRequest(requests_.begin()->first,
               absl::InternalError("the device failed during the request"));
  }
  if (on_fatal) on_fatal(status);
}

}  // namespace

std::unique_ptr<Engine> Engine::Create(std::unique_ptr<Backend> backend, EngineOptions options) {
  const BackendInfo& info = backend->info();
  SchedulerOptions scheduler;
  scheduler.num_slots = info.num_slots;
  scheduler.max_batched_tokens = info.max_batched_tokens;
  if (options.max_num_batched_tokens > 0) {
    scheduler.max_batched_tokens =
        std::min(options.max_num_batched_tokens, info.max_batched_tokens);
  }
  scheduler.prefill_tokens_fixed = options.max_num_prefill_tokens > 0;
  scheduler.prefill_tokens_beside_decodes = scheduler.prefill_tokens_fixed
                                                ? options.max_num_prefill_tokens
                                                : info.prefill_tokens_beside_decodes;
  // A backend that gives advice is one on which the first prompt token of a step is the dear one.
  constexpr uint64_t kPromptInterval = 8;
  if (info.prefill_tokens_beside_decodes > 0) scheduler.prompt_interval = kPromptInterval;
  return std::make_unique<EngineImpl>(std::move(backend), options, scheduler);
}

}  // namespace hgrn2
