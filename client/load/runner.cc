#include "client/load/runner.h"

#include <fmt/format.h>
#include <hgrn2/v1/inference.grpc.pb.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <thread>
#include <tuple>
#include <unordered_set>
#include <utility>

namespace hgrn2::client {
namespace {

using SteadyClock = std::chrono::steady_clock;

int64_t ToNanos(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

double ProcessCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct ThreadCpu {
  double run_s = 0;
  double wait_s = 0;  // runnable, not running
};

ThreadCpu ThisThreadCpu() {
  ThreadCpu cpu;
  std::ifstream schedstat("/proc/thread-self/schedstat");
  double run_ns = 0;
  double wait_ns = 0;
  if (schedstat >> run_ns >> wait_ns) {
    cpu.run_s = run_ns * 1e-9;
    cpu.wait_s = wait_ns * 1e-9;
  }
  return cpu;
}

}  // namespace

// One request in flight. At most one operation is outstanding, so the call itself is the tag.
struct Runner::Call {
  enum class Step { kStarting, kReading, kFinishing };

  Step step = Step::kStarting;
  PlannedRequest plan;
  RequestRecord record;
  std::shared_ptr<std::vector<int32_t>> history;  // only of sessions with several turns
  bool cancel_sent = false;
  bool aborted = false;  // the server gave up on it
  grpc::ClientContext context;
  v1::GenerateResponse response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateResponse>> reader;
};

struct Runner::Shard {
  Shard(Goodput goodput, size_t max_records) : recorder(goodput, max_records) {}

  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<v1::Inference::Stub>> stubs;  // of each target in turn
  std::vector<int> targets;                                 // which target a stub is for
  std::atomic<uint64_t> next_stub{0};
  std::thread thread;

  std::mutex mu;  // guards what follows
  Recorder recorder;
  std::unordered_set<Call*> calls;
  Histogram recent_ttft, recent_itl;
  uint64_t tokens = 0;
  ThreadCpu cpu;
};

Runner::Runner(const RunnerOptions& options, Workload* workload)
    : options_(options), workload_(workload), start_(SteadyClock::now()) {}

Runner::~Runner() = default;

int64_t Runner::Now() const {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(SteadyClock::now() - start_).count();
}

absl::Status Runner::Connect() {
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(10);
  const auto& targets = options_.connection.targets;
  for (int i = 0; i < std::max(options_.threads, 1); ++i) {
    shards_.push_back(std::make_unique<Shard>(options_.goodput, options_.max_records));
  }
  const size_t total = std::max(targets.size() * options_.connections, shards_.size());
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (size_t i = 0; i < total; ++i) {
    const size_t target = i % targets.size();
    auto channel = MakeChannel(options_.connection, targets[target]);
    if (!channel.ok()) return channel.status();
    (*channel)->GetState(/*try_to_connect=*/true);
    channels.push_back(*channel);
    Shard& shard = *shards_[(i / targets.size()) % shards_.size()];
    shard.stubs.push_back(v1::Inference::NewStub(*channel));
    shard.targets.push_back(static_cast<int>(target));
  }
  for (size_t i = 0; i < total; ++i) {
    if (!channels[i]->WaitForConnected(deadline)) {
      return absl::UnavailableError("cannot connect to " + targets[i % targets.size()] +
                                    " within 10 s");
    }
  }
  // With more targets than threads x rounds, a shard may have been left without a stub.
  std::erase_if(shards_, [](const auto& shard) { return shard->stubs.empty(); });
  return absl::OkStatus();
}

RunResult Runner::Run() {
  start_ = SteadyClock::now();
  started_unix_ =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const double cpu_begin = ProcessCpuSeconds();
  for (auto& shard : shards_) {
    shard->thread = std::thread([this, s = shard.get()] { Poll(s); });
  }
  Pace();
  const double wall = static_cast<double>(Now()) * 1e-9;
  const double cpu_end = ProcessCpuSeconds();
  for (auto& shard : shards_) shard->queue.Shutdown();
  for (auto& shard : shards_) shard->thread.join();
  RunResult result = Collect();
  result.cpu.wall_s = wall;
  result.cpu.process_s = cpu_end - cpu_begin;
  return result;
}

std::optional<PlannedRequest> Runner::TakeNext() {
  if (exhausted_) return std::nullopt;
  std::optional<PlannedRequest> plan;
  if (options_.max_requests == 0 ||
      sessions_started_ < options_.warmup_requests + options_.max_requests) {
    plan = workload_->Next();
  }
  const double end_s = options_.warmup_s + options_.duration_s;
  if (plan && options_.duration_s > 0) {
    const double at = workload_->closed_loop() ? static_cast<double>(Now()) * 1e-9 : plan->at_s;
    if (at >= end_s) plan.reset();
  }
  if (plan) {
    ++sessions_started_;
  } else {
    exhausted_ = true;
  }
  return plan;
}

// Starts arrivals and later turns when they are due, until every session has ended, or Stop, or
// the drain time is over.
void Runner::Pace() {
  if (workload_->closed_loop()) StartClosedLoop();
  std::unique_lock lock(mu_);
  std::optional<PlannedRequest> next;
  if (!workload_->closed_loop()) next = TakeNext();
  auto give_up = SteadyClock::time_point::max();
  const int64_t sending_end = ToNanos(options_.warmup_s + options_.duration_s);
  while ((next || active_sessions_ > 0) && !stopping_) {
    if (options_.duration_s > 0 && Now() >= sending_end && !next) exhausted_ = true;
    if (exhausted_ && give_up == SteadyClock::time_point::max()) {
      give_up = SteadyClock::now() + std::chrono::nanoseconds(ToNanos(options_.drain_s));
    }
    if (SteadyClock::now() >= give_up) break;
    const int64_t arrival = next ? ToNanos(next->at_s) : INT64_MAX;
    const int64_t turn = later_.empty() ? INT64_MAX : later_.top().at;
    const int64_t due = std::min(arrival, turn);
    if (due > Now()) {
      // At most a second at a time: the end of a closed loop's duration has no event of its own.
      auto wake = std::min(give_up, SteadyClock::now() + std::chrono::seconds(1));
      if (due != INT64_MAX) wake = std::min(wake, start_ + std::chrono::nanoseconds(due));
      changed_.wait_until(lock, wake);
    } else if (turn <= arrival) {
      StartTurn(&lock);
    } else {
      StartDue(*next, due, &lock);
      next = TakeNext();
    }
  }
  lock.unlock();
  Abort();
}

void Runner::StartClosedLoop() {
  for (int i = 0; i < options_.max_concurrency && !stopping_; ++i) {
    std::optional<PlannedRequest> plan;
    {
      std::lock_guard lock(mu_);
      plan = TakeNext();
      if (!plan) return;
      ++active_sessions_;
    }
    Start(*plan, Now(), false, nullptr);
  }
}

void Runner::StartDue(const PlannedRequest& plan, int64_t due, std::unique_lock<std::mutex>* lock) {
  if (options_.max_concurrency > 0 && active_sessions_ >= options_.max_concurrency) {
    held_back_.emplace_back(plan, due);
    return;
  }
  ++active_sessions_;
  lock->unlock();
  Start(plan, due, false, nullptr);
  lock->lock();
}

void Runner::StartTurn(std::unique_lock<std::mutex>* lock) {
  Later turn = later_.top();
  later_.pop();
  lock->unlock();
  Start(turn.plan, turn.at, false, std::move(turn.history));
  lock->lock();
}

// Ends what is still going on. No-op when nothing is.
void Runner::Abort() {
  std::unique_lock lock(mu_);
  exhausted_ = true;
  if (active_sessions_ == 0) return;
  stopping_ = true;
  active_sessions_ -= static_cast<int64_t>(later_.size());
  never_sent_ += held_back_.size();
  later_ = {};
  held_back_.clear();
  while (active_sessions_ > 0) {
    lock.unlock();
    for (auto& shard : shards_) {
      std::lock_guard shard_lock(shard->mu);
      for (Call* call : shard->calls) call->context.TryCancel();
    }
    lock.lock();
    // Again if needed: a polling thread may have started a call just before it saw stopping_.
    changed_.wait_for(lock, std::chrono::milliseconds(50));
  }
}

v1::GenerateRequest Runner::MakeRequest(Call* call) const {
  const PlannedRequest& plan = call->plan;
  v1::GenerateRequest request = options_.base;
  v1::Prompt* prompt = request.add_prompts();
  if (plan.text >= 0) {
    prompt->set_text(workload_->text(plan));
  } else {
    std::vector<int32_t> fresh;
    if (call->history == nullptr && plan.num_turns > 1) {
      call->history = std::make_shared<std::vector<int32_t>>();
    }
    std::vector<int32_t>& tokens = call->history != nullptr ? *call->history : fresh;
    workload_->AppendPromptTokens(plan, &tokens);
    prompt->mutable_tokens()->mutable_ids()->Assign(tokens.begin(), tokens.end());
    call->record.prompt_tokens = static_cast<int32_t>(tokens.size());
  }
  request.set_request_id(fmt::format("load-{}-{}", plan.session, plan.turn));
  request.mutable_sampling()->set_max_tokens(plan.output_tokens);
  request.set_priority(plan.priority);
  return request;
}

void Runner::Start(const PlannedRequest& plan, int64_t intended, bool held_back,
                   std::shared_ptr<std::vector<int32_t>> history) {
  Shard& shard = *shards_[next_shard_.fetch_add(1, std::memory_order_relaxed) % shards_.size()];
  const size_t stub = shard.next_stub.fetch_add(1, std::memory_order_relaxed) % shard.stubs.size();
  Call* call = new Call;  // deleted when its last event was handled
  call->plan = plan;
  call->history = std::move(history);
  const v1::GenerateRequest request = MakeRequest(call);
  ConnectionOptions per_call;
  per_call.api_key = options_.connection.api_key;
  per_call.timeout_s = plan.deadline_s > 0 ? plan.deadline_s : options_.connection.timeout_s;
  PrepareContext(per_call, &call->context);

  RequestRecord& r = call->record;
  r.session = plan.session;
  r.turn = plan.turn;
  r.target = shard.targets[stub];
  r.priority = plan.priority;
  r.intended = intended;
  r.held_back = held_back;
  r.warmup = intended < ToNanos(options_.warmup_s) || plan.session < options_.warmup_requests;

  sent_.fetch_add(1, std::memory_order_relaxed);
  const int64_t in_flight = in_flight_.fetch_add(1, std::memory_order_relaxed) + 1;
  call->reader = shard.stubs[stub]->PrepareAsyncGenerate(&call->context, request, &shard.queue);
  {
    std::lock_guard lock(shard.mu);
    shard.calls.insert(call);
    r.sent = Now();
    shard.recorder.OnSent(r.sent, in_flight);
  }
  call->reader->StartCall(call);
}

void Runner::Poll(Shard* shard) {
  const ThreadCpu begin = ThisThreadCpu();
  void* tag = nullptr;
  bool ok = false;
  while (shard->queue.Next(&tag, &ok)) {
    Call* call = static_cast<Call*>(tag);
    std::unique_lock lock(shard->mu);
    if (call->step == Call::Step::kFinishing) {
      lock.unlock();
      OnFinished(shard, call);
      continue;
    }
    if (call->step == Call::Step::kStarting && call->plan.cancel_after == 0) {
      call->cancel_sent = true;
      call->context.TryCancel();
    }
    if (call->step == Call::Step::kReading && ok) OnMessage(shard, call);
    if (ok) {
      call->step = Call::Step::kReading;
      call->reader->Read(&call->response, call);
    } else {
      call->step = Call::Step::kFinishing;
      call->reader->Finish(&call->status, call);
    }
  }
  const ThreadCpu end = ThisThreadCpu();
  std::lock_guard lock(shard->mu);
  shard->cpu = {end.run_s - begin.run_s, end.wait_s - begin.wait_s};
}

// REQUIRES: shard->mu held.
void Runner::OnMessage(Shard* shard, Call* call) {
  const int64_t now = Now();
  RequestRecord& r = call->record;
  const v1::GenerateResponse& response = call->response;
  int tokens = 0;
  for (const v1::ChoiceDelta& delta : response.choices()) {
    tokens += delta.token_ids_size();
    if (call->history != nullptr) {
      call->history->insert(call->history->end(), delta.token_ids().begin(),
                            delta.token_ids().end());
    }
    call->aborted |= delta.finish_reason() == v1::FINISH_REASON_ABORT;
  }
  if (response.has_usage()) {
    r.prompt_tokens = response.usage().prompt_tokens();
    r.cached_tokens = response.usage().cached_tokens();
  }
  if (response.has_timing()) {
    r.server_queue_s = static_cast<float>(response.timing().queue());
    r.server_prefill_s = static_cast<float>(response.timing().prefill());
    r.server_decode_s = static_cast<float>(response.timing().decode());
  }
  if (tokens == 0) return;
  ++r.messages;
  r.output_tokens += tokens;
  shard->tokens += tokens;
  shard->recorder.OnTokens(now, tokens);
  shard->recorder.OnInFlight(now, in_flight_.load(std::memory_order_relaxed));
  if (r.first < 0) {
    r.first = now;
    shard->recorder.OnFirstToken(now, r.ttft());
    shard->recent_ttft.Add(r.ttft());
  } else {
    const int64_t gap = now - r.last;
    r.max_gap = std::max(r.max_gap, gap);
    shard->recorder.OnGap(now, gap, r.warmup);
    shard->recent_itl.Add(gap);
  }
  r.last = now;
  if (call->plan.cancel_after >= 0 && r.output_tokens >= call->plan.cancel_after &&
      !call->cancel_sent) {
    call->cancel_sent = true;
    call->context.TryCancel();
  }
}

void Runner::Classify(Call* call) const {
  RequestRecord& r = call->record;
  r.code = call->status.error_code();
  if (call->status.ok() && call->aborted) {
    call->status = grpc::Status(grpc::StatusCode::ABORTED, "the server aborted the generation");
    r.code = grpc::StatusCode::ABORTED;
    r.outcome = Outcome::kFailed;
  } else if (call->status.ok()) {
    r.outcome = Outcome::kCompleted;
  } else if (r.code == grpc::StatusCode::CANCELLED && call->cancel_sent) {
    r.outcome = Outcome::kCancelled;
  } else if (r.code == grpc::StatusCode::CANCELLED && stopping_) {
    r.outcome = Outcome::kInterrupted;
  } else if (r.code == grpc::StatusCode::DEADLINE_EXCEEDED && call->plan.deadline_s > 0) {
    r.outcome = Outcome::kDeadline;
  } else {
    r.outcome = Outcome::kFailed;
  }
}

void Runner::OnFinished(Shard* shard, Call* raw) {
  const std::unique_ptr<Call> call(raw);
  {
    std::lock_guard lock(shard->mu);
    call->record.done = Now();
    Classify(call.get());
    shard->recorder.OnInFlight(call->record.done, in_flight_.load(std::memory_order_relaxed));
    shard->recorder.OnDone(call->record, call->status.error_message());
    shard->calls.erase(raw);
  }
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  AfterCall(*call);
}

// Keeps the session going, or gives its place to the next one.
void Runner::AfterCall(const Call& call) {
  std::unique_lock lock(mu_);
  if (ScheduleNextTurn(call)) return;
  std::optional<PlannedRequest> plan;
  bool held_back = false;
  int64_t intended = Now();
  if (!stopping_ && !held_back_.empty()) {
    std::tie(plan, intended) = held_back_.front();
    held_back_.pop_front();
    held_back = true;
  } else if (!stopping_ && workload_->closed_loop()) {
    plan = TakeNext();
  }
  if (plan) {
    lock.unlock();
    Start(*plan, intended, held_back, nullptr);
    return;
  }
  if (--active_sessions_ == 0) changed_.notify_all();  // else the pacer has nothing to do
}

// REQUIRES: mu_ held.
bool Runner::ScheduleNextTurn(const Call& call) {
  if (stopping_ || call.record.outcome != Outcome::kCompleted) return false;
  const std::optional<PlannedRequest> turn = workload_->NextTurn(call.plan);
  if (!turn) return false;
  const int64_t at = Now() + ToNanos(turn->think_s);
  if (options_.duration_s > 0 && at > ToNanos(options_.warmup_s + options_.duration_s))
    return false;
  later_.push({at, *turn, call.history});
  changed_.notify_all();
  return true;
}

void Runner::Stop() {
  stopping_ = true;
  std::lock_guard lock(mu_);
  changed_.notify_all();
}

Progress Runner::Snapshot() {
  Progress progress;
  progress.elapsed_s = static_cast<double>(Now()) * 1e-9;
  progress.sent = sent_;
  progress.in_flight = in_flight_;
  for (auto& shard : shards_) {
    std::lock_guard lock(shard->mu);
    const Recorder& r = shard->recorder;
    progress.completed += r.finished_ok;
    progress.failed += r.finished_badly;
    progress.tokens += shard->tokens;
    progress.ttft.Merge(std::exchange(shard->recent_ttft, Histogram()));
    progress.itl.Merge(std::exchange(shard->recent_itl, Histogram()));
  }
  return progress;
}

RunResult Runner::Collect() {
  RunResult result{Recorder(options_.goodput, options_.max_records), {}};
  for (auto& shard : shards_) {
    result.recorder.Merge(shard->recorder);
    if (shard->cpu.run_s + shard->cpu.wait_s >
        result.cpu.busiest_poller_s + result.cpu.poller_wait_s) {
      result.cpu.busiest_poller_s = shard->cpu.run_s;
      result.cpu.poller_wait_s = shard->cpu.wait_s;
    }
  }
  result.recorder.interrupted += never_sent_;
  auto& records = result.recorder.records;
  std::sort(records.begin(), records.end(), [](const RequestRecord& a, const RequestRecord& b) {
    return std::tie(a.session, a.turn) < std::tie(b.session, b.turn);
  });
  result.started = start_;
  result.started_unix = started_unix_;
  const Recorder& r = result.recorder;
  if (r.window_end > r.window_begin) {
    result.duration_s = static_cast<double>(r.window_end - r.window_begin) * 1e-9;
  }
  result.stopped = stopping_;
  return result;
}

}  // namespace hgrn2::client
