#include "server/engine_router.h"

#include <algorithm>
#include <numeric>
#include <thread>
#include <utility>

#include "base/check.h"

namespace hgrn2 {
namespace {

// Passes everything on and takes the request's weight off its engine's load at the end.
class CountingSink : public TokenSink {
 public:
  CountingSink(std::shared_ptr<TokenSink> sink, std::shared_ptr<std::atomic<int64_t>> load,
               int64_t weight)
      : sink_(std::move(sink)), load_(std::move(load)), weight_(weight) {
    load_->fetch_add(weight_, std::memory_order_relaxed);
  }
  // At the end of the request, or when it was refused.
  ~CountingSink() override { load_->fetch_sub(weight_, std::memory_order_relaxed); }

  void OnPromptScores(std::vector<TokenScore> scores) override {
    sink_->OnPromptScores(std::move(scores));
  }
  void OnToken(int32_t choice, TokenScore token) override {
    sink_->OnToken(choice, std::move(token));
  }
  void OnChoiceDone(int32_t choice, FinishReason reason, int32_t stop_token) override {
    sink_->OnChoiceDone(choice, reason, stop_token);
  }
  void OnContinuationScores(int32_t continuation, std::vector<TokenScore> scores) override {
    sink_->OnContinuationScores(continuation, std::move(scores));
  }
  void OnDone(const absl::Status& status, const Usage& usage, const Timing& timing) override {
    sink_->OnDone(status, usage, timing);
  }

 private:
  const std::shared_ptr<TokenSink> sink_;
  const std::shared_ptr<std::atomic<int64_t>> load_;
  const int64_t weight_;
};

}  // namespace

EngineRouter::EngineRouter(std::vector<std::unique_ptr<Engine>> engines) {
  HGRN2_CHECK(!engines.empty());
  info_ = engines.front()->backend_info();
  for (std::unique_ptr<Engine>& engine : engines) {
    if (!members_.empty()) {
      const BackendInfo& info = engine->backend_info();
      info_.device += ", " + info.device;
      info_.num_slots += info.num_slots;
      info_.weight_bytes += info.weight_bytes;
      info_.max_batched_tokens = std::min(info_.max_batched_tokens, info.max_batched_tokens);
    }
    members_.push_back({std::move(engine), std::make_shared<std::atomic<int64_t>>(0)});
  }
}

std::vector<size_t> EngineRouter::LeastLoadedFirst() const {
  std::vector<int64_t> loads;
  for (const Member& member : members_) {
    loads.push_back(member.load->load(std::memory_order_relaxed));
  }
  std::vector<size_t> order(members_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return loads[a] < loads[b]; });
  return order;
}

absl::StatusOr<RequestHandle> EngineRouter::Submit(EngineRequest request) {
  const int64_t weight =
      std::max<int64_t>({1, request.num_choices, std::ssize(request.continuations)});
  absl::Status refused;
  for (const size_t index : LeastLoadedFirst()) {
    const Member& member = members_[index];
    EngineRequest attempt = request;
    attempt.sink = std::make_shared<CountingSink>(request.sink, member.load, weight);
    absl::StatusOr<RequestHandle> handle = member.engine->Submit(std::move(attempt));
    if (handle.ok()) return *handle * members_.size() + index;
    refused = handle.status();
    // Another engine may have room in its queue; nothing else is better elsewhere.
    if (refused.code() != absl::StatusCode::kResourceExhausted) break;
  }
  return refused;
}

void EngineRouter::Cancel(RequestHandle handle) {
  members_[handle % members_.size()].engine->Cancel(handle / members_.size());
}

void EngineRouter::StopChoice(RequestHandle handle, int32_t choice) {
  members_[handle % members_.size()].engine->StopChoice(handle / members_.size(), choice);
}

bool EngineRouter::Drain(Duration timeout) {
  std::vector<std::thread> threads;
  std::atomic<bool> clean = true;
  for (Member& member : members_) {
    threads.emplace_back([&clean, &member, timeout] {
      if (!member.engine->Drain(timeout)) clean = false;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return clean;
}

EngineStats EngineRouter::Stats() const {
  EngineStats sum;
  for (const Member& member : members_) {
    const EngineStats stats = member.engine->Stats();
    sum.num_running += stats.num_running;
    sum.num_waiting += stats.num_waiting;
    sum.slots_used += stats.slots_used;
    sum.num_slots += stats.num_slots;
    sum.num_steps += stats.num_steps;
    sum.seconds_since_heartbeat =
        std::max(sum.seconds_since_heartbeat, stats.seconds_since_heartbeat);
    sum.draining |= stats.draining;
    sum.failed |= stats.failed;
  }
  return sum;
}

void EngineRouter::SetFatalErrorCallback(std::function<void(const absl::Status&)> done) {
  for (Member& member : members_) member.engine->SetFatalErrorCallback(done);
}

bool EngineRouter::StepOnce() {
  bool worked = false;
  for (Member& member : members_) worked |= member.engine->StepOnce();
  return worked;
}

}  // namespace hgrn2
