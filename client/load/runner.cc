#include "client/load/runner.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <thread>
#include <tuple>
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

struct Runner::Call : CallEvents {
  Call(Runner* r, Shard* s) : runner(r), shard(s) {}
  bool OnStarted() override {
    cancel_sent = plan.cancel_after == 0;
    return !cancel_sent;
  }
  bool OnPart(const AnswerPart& part) override { return runner->OnPart(this, part); }
  void OnEnd(const CallEnd& end) override { runner->OnFinished(this, end); }

  Runner* const runner;
  Shard* const shard;
  PlannedRequest plan;
  RequestRecord record;
  std::shared_ptr<std::vector<int32_t>> history;  // only of sessions with several turns
  bool cancel_sent = false;
  bool aborted = false;  // the server gave up on it
};

struct Runner::Shard {
  Shard(Goodput goodput, size_t max_records) : recorder(goodput, max_records) {}

  std::unique_ptr<Transport> transport;
  std::thread thread;

  std::mutex mu;  // guards what follows
  Recorder recorder;
  Histogram recent_ttft, recent_itl;
  uint64_t tokens = 0;
  ThreadCpu cpu;
};

Runner::Runner(const RunnerOptions& options, Workload* workload,
               const MakeTransport& make_transport)
    : options_(options), workload_(workload), start_(SteadyClock::now()) {
  for (int i = 0; i < std::max(options_.threads, 1); ++i) {
    shards_.push_back(std::make_unique<Shard>(options_.goodput, options_.max_records));
    shards_.back()->transport = make_transport();
  }
}

Runner::~Runner() = default;

int64_t Runner::Now() const {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(SteadyClock::now() - start_).count();
}

absl::Status Runner::Connect() {
  const int shards = static_cast<int>(shards_.size());
  const auto share = [&](int total) { return (total + shards - 1) / shards; };
  for (auto& shard : shards_) {
    const absl::Status status = shard->transport->Connect(share(std::max(options_.connections, 1)),
                                                          share(options_.max_concurrency));
    if (!status.ok()) return status;
  }
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
  for (auto& shard : shards_) shard->transport->Shutdown();
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
    sending_end_ = Now();
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
    if (options_.duration_s > 0 && Now() >= sending_end && !next && !exhausted_) {
      exhausted_ = true;
      sending_end_ = Now();
    }
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
  if (!std::exchange(exhausted_, true)) sending_end_ = Now();
  if (active_sessions_ == 0) return;
  stopping_ = true;
  active_sessions_ -= static_cast<int64_t>(later_.size());
  never_sent_ += held_back_.size();
  later_ = {};
  held_back_.clear();
  while (active_sessions_ > 0) {
    lock.unlock();
    for (auto& shard : shards_) shard->transport->CancelAll();
    lock.lock();
    // Again if needed: a polling thread may have started a call just before it saw stopping_.
    changed_.wait_for(lock, std::chrono::milliseconds(50));
  }
}

void Runner::Start(const PlannedRequest& plan, int64_t intended, bool held_back,
                   std::shared_ptr<std::vector<int32_t>> history) {
  Shard& shard = *shards_[next_shard_.fetch_add(1, std::memory_order_relaxed) % shards_.size()];
  Call* call = new Call(this, &shard);  // deleted by OnFinished
  call->plan = plan;
  call->history = std::move(history);

  RequestRecord& r = call->record;
  r.session = plan.session;
  r.turn = plan.turn;
  r.target = shard.transport->NextTarget();
  r.priority = plan.priority;
  r.intended = intended;
  r.held_back = held_back;
  r.warmup = intended < ToNanos(options_.warmup_s) || plan.session < options_.warmup_requests;

  CallRequest request;
  std::vector<int32_t> fresh;
  if (plan.text >= 0) {
    request.text = &workload_->text(plan);
  } else {
    if (call->history == nullptr && plan.num_turns > 1) {
      call->history = std::make_shared<std::vector<int32_t>>();
    }
    std::vector<int32_t>& tokens = call->history != nullptr ? *call->history : fresh;
    workload_->AppendPromptTokens(plan, &tokens);
    request.prompt_ids = tokens;
    r.prompt_tokens = static_cast<int32_t>(tokens.size());
  }
  request.request_id = fmt::format("load-{}-{}", plan.session, plan.turn);
  request.max_tokens = plan.output_tokens;
  request.priority = plan.priority;
  request.timeout_s = plan.deadline_s > 0 ? plan.deadline_s : options_.timeout_s;

  sent_.fetch_add(1, std::memory_order_relaxed);
  const int64_t in_flight = in_flight_.fetch_add(1, std::memory_order_relaxed) + 1;
  {
    std::lock_guard lock(shard.mu);
    r.sent = Now();
    shard.recorder.OnSent(r.sent, in_flight);
  }
  shard.transport->Start(r.target, request, call);
}

void Runner::Poll(Shard* shard) {
  const ThreadCpu begin = ThisThreadCpu();
  shard->transport->Run();
  const ThreadCpu end = ThisThreadCpu();
  std::lock_guard lock(shard->mu);
  shard->cpu = {end.run_s - begin.run_s, end.wait_s - begin.wait_s};
}

bool Runner::OnPart(Call* call, const AnswerPart& part) {
  const int64_t now = Now();
  Shard* const shard = call->shard;
  std::lock_guard lock(shard->mu);
  RequestRecord& r = call->record;
  if (call->history != nullptr) {
    call->history->insert(call->history->end(), part.token_ids.begin(), part.token_ids.end());
  }
  call->aborted |= part.aborted;
  if (part.prompt_tokens >= 0) r.prompt_tokens = part.prompt_tokens;
  if (part.cached_tokens >= 0) r.cached_tokens = part.cached_tokens;
  if (part.queue_s >= 0) {
    r.server_queue_s = static_cast<float>(part.queue_s);
    r.server_prefill_s = static_cast<float>(part.prefill_s);
    r.server_decode_s = static_cast<float>(part.decode_s);
  }
  if (part.tokens > 0) {
    ++r.messages;
    r.output_tokens += part.tokens;
    shard->tokens += part.tokens;
    shard->recorder.OnTokens(now, part.tokens);
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
  }
  if (part.total_tokens >= 0) r.output_tokens = part.total_tokens;
  if (call->plan.cancel_after < 0 || r.output_tokens < call->plan.cancel_after) return true;
  call->cancel_sent = true;
  return false;
}

void Runner::Classify(Call* call, CallEnd* end) const {
  RequestRecord& r = call->record;
  if (end->code == grpc::StatusCode::OK && call->aborted) {
    *end = {grpc::StatusCode::ABORTED, 0, "the server aborted the generation"};
  }
  r.code = end->code;
  r.http_status = end->http_status;
  if (end->code == grpc::StatusCode::OK) {
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

void Runner::OnFinished(Call* raw, const CallEnd& end) {
  const std::unique_ptr<Call> call(raw);
  Shard* const shard = call->shard;
  CallEnd outcome = end;
  {
    std::lock_guard lock(shard->mu);
    call->record.done = Now();
    Classify(call.get(), &outcome);
    shard->recorder.OnInFlight(call->record.done, in_flight_.load(std::memory_order_relaxed));
    shard->recorder.OnDone(call->record, outcome.message);
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
  result.sending_begin_s = options_.warmup_s;
  result.sending_end_s = static_cast<double>(sending_end_) * 1e-9;
  if (options_.duration_s > 0) {
    result.sending_end_s = std::min(result.sending_end_s, options_.warmup_s + options_.duration_s);
  }
  result.stopped = stopping_;
  return result;
}

}  // namespace hgrn2::client
