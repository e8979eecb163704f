// Sends a workload to the servers and measures. Threads: the caller's paces (sleeps until the next
// intended send time and starts calls); each polling thread owns one transport and everything that
// happens to the calls on it. An answer in the closed loop starts the next call at
// once, on the polling thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "client/load/recorder.h"
#include "client/load/transport.h"
#include "client/load/workload.h"

namespace hgrn2::client {

struct RunnerOptions {
  int connections = 1;        // TCP connections to each target
  int threads = 1;            // polling threads
  int max_concurrency = 0;    // sessions at a time; 0: no limit (open loop only)
  double duration_s = 0;      // of sending, after the warm-up; 0: until max_requests
  uint64_t max_requests = 0;  // sessions started, after the warm-up; 0: until duration
  double warmup_s = 0;
  uint64_t warmup_requests = 0;
  double drain_s = 60;  // after sending: wait this long for answers, then interrupt them
  size_t max_records = 1'000'000;
  Goodput goodput;
  double timeout_s = 0;  // of every request without a deadline of its own; 0: none
};

// CPU use of this process while it measured.
struct ClientCpu {
  double wall_s = 0;
  double process_s = 0;         // user + system
  double busiest_poller_s = 0;  // CPU of the busiest polling thread
  double poller_wait_s = 0;     // that thread was ready to run but had no CPU
};

struct RunResult {
  Recorder recorder;
  ClientCpu cpu;
  std::chrono::steady_clock::time_point started{};  // time 0
  double started_unix = 0;                          // wall-clock seconds of time 0
  double duration_s = 0;  // window of measurement: first intended send to last end
  // When requests were being sent, after the warm-up: seconds since time 0. Until the last send, or
  // the end of the time to send.
  double sending_begin_s = 0;
  double sending_end_s = 0;
  bool stopped = false;  // by Stop
};

// What a progress display shows; read while the run goes on.
struct Progress {
  double elapsed_s = 0;
  uint64_t sent = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t tokens = 0;
  int64_t in_flight = 0;
  Histogram ttft, itl;  // since the last call of Snapshot
};

class Runner {
 public:
  using MakeTransport = std::function<std::unique_ptr<Transport>()>;

  Runner(const RunnerOptions& options, Workload* workload, const MakeTransport& make_transport);
  ~Runner();

  // Opens the connections, so that no request pays for a handshake. Once, first.
  absl::Status Connect();
  // Once, after Connect succeeded.
  RunResult Run();
  // Ends the run soon: calls in flight are cancelled. Any thread, any time.
  void Stop();
  // Only after Connect.
  Progress Snapshot();

 private:
  struct Call;
  struct Shard;
  struct Later {  // an entry of the pacer's heap
    int64_t at;
    PlannedRequest plan;
    std::shared_ptr<std::vector<int32_t>> history;
    bool operator<(const Later& other) const { return at > other.at; }
  };

  int64_t Now() const;
  void Pace();
  void StartClosedLoop();
  void Abort();
  std::optional<PlannedRequest> TakeNext();  // REQUIRES: mu_ held
  void StartDue(const PlannedRequest& plan, int64_t due, std::unique_lock<std::mutex>* lock);
  void StartTurn(std::unique_lock<std::mutex>* lock);
  void Start(const PlannedRequest& plan, int64_t intended, bool held_back,
             std::shared_ptr<std::vector<int32_t>> history);
  void Poll(Shard* shard);
  bool OnPart(Call* call, const AnswerPart& part);
  void OnFinished(Call* call, const CallEnd& end);
  void Classify(Call* call, CallEnd* end) const;
  void AfterCall(const Call& call);
  bool ScheduleNextTurn(const Call& call);
  RunResult Collect();

  const RunnerOptions options_;
  Workload* const workload_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::chrono::steady_clock::time_point start_;
  double started_unix_ = 0;

  std::mutex mu_;  // guards what follows, and workload_->Next
  std::condition_variable changed_;
  std::priority_queue<Later> later_;  // turns waiting out their think time
  std::deque<std::pair<PlannedRequest, int64_t>> held_back_;
  uint64_t sessions_started_ = 0;
  int64_t active_sessions_ = 0;  // started, with a call in flight or a turn to come
  bool exhausted_ = false;       // no new session is to be started
  uint64_t never_sent_ = 0;      // held back until the run was given up
  int64_t sending_end_ = 0;      // when exhausted_ became true

  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> next_shard_{0};
  std::atomic<uint64_t> sent_{0};
  std::atomic<int64_t> in_flight_{0};
};

}  // namespace hgrn2::client
