// The engine of one device: a thread that owns backend, scheduler, state slots and sequences, and
// advances all running sequences step by step. Two crossing points only: the request queue in, the
// TokenSinks out; neither blocks the other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/backend/backend.h"
#include "engine/request.h"

namespace hgrn2 {

using RequestHandle = uint64_t;

// Phase a request was in when it was cancelled or ran out of time.
enum class Phase { kQueued, kPrefill, kDecode };

// Observes the engine, for metrics. Called on the engine thread (OnRejected: the submitter's); must
// return at once.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  struct StepInfo {
    int32_t prefill_tokens = 0;
    int32_t decode_tokens = 0;
    int32_t num_sequences = 0;
    double plan_seconds = 0;    // scheduling and batch assembly
    double device_seconds = 0;  // enqueue to collected
    double apply_seconds = 0;   // results to sinks
  };
  virtual void OnStep(const StepInfo& step) {}
  // First token of a choice, seconds since submit.
  virtual void OnFirstToken(double time_to_first_token) {}
  virtual void OnInterTokenLatency(double seconds) {}
  virtual void OnPrefilled(int32_t prompt_tokens) {}
  struct FinishInfo {
    absl::StatusCode status = absl::StatusCode::kOk;
    FinishReason reason = FinishReason::kStop;  // of the first choice, if OK
    Usage usage;
    Timing timing;
    double end_to_end = 0;
    Phase phase = Phase::kQueued;  // where it was when it ended
  };
  virtual void OnFinished(const FinishInfo& info) {}
  enum class RejectReason { kQueueFull, kDraining, kDeadline };
  virtual void OnRejected(RejectReason reason) {}
  virtual void OnPreempted() {}
  // Copies of a state between device and host. op: "save" or "restore".
  virtual void OnSnapshot(const char* op, bool ok) {}
};

struct EngineOptions {
  int32_t max_num_batched_tokens = 0;  // 0: the backend's; clamped to what it supports
  // Most prompt tokens of a step that also decodes. 0: what the backend advises, and more when many
  // prompts wait.
  int32_t max_num_prefill_tokens = 0;
  int32_t max_num_queued_reqs = 1024;  // waiting requests
  const Clock* clock = nullptr;        // null: the real one
  EngineObserver* observer = nullptr;  // not owned; outlives the engine
  // For deterministic tests: no thread; the test calls StepOnce.
  bool manual_stepping = false;
};

struct EngineStats {
  int32_t num_running = 0;  // requests with a slot
  int32_t num_waiting = 0;  // requests without
  int32_t slots_used = 0;
  int32_t num_slots = 0;
  uint64_t num_steps = 0;
  double seconds_since_heartbeat = 0;  // of the engine loop, which beats while idle too
  bool draining = false;
  bool failed = false;  // a device error: no request is taken any more
};

// Thread-safe, except StepOnce.
class Engine {
 public:
  static std::unique_ptr<Engine> Create(std::unique_ptr<Backend> backend, EngineOptions options);
  virtual ~Engine() = default;  // fails what still runs with UNAVAILABLE

  // RESOURCE_EXHAUSTED: queue full. UNAVAILABLE: draining or failed. DEADLINE_EXCEEDED: already
  // past. On error the sink is not called.
  virtual absl::StatusOr<RequestHandle> Submit(EngineRequest request) = 0;

  // Ends the request with CANCELLED; its slots are free within one step. No-op if it has ended.
  virtual void Cancel(RequestHandle handle) = 0;
  // Ends one choice as FinishReason::kStop (a stop string was found in its text).
  virtual void StopChoice(RequestHandle handle, int32_t choice) = 0;

  // Refuses new requests from now on; returns when all have ended, or after `timeout`, when the
  // rest is ended with UNAVAILABLE. True if none had to be.
  virtual bool Drain(Duration timeout) = 0;

  virtual EngineStats Stats() const = 0;
  virtual const BackendInfo& backend_info() const = 0;
  // Runs `done` on the first device error, on the engine thread, after the requests were failed.
  virtual void SetFatalErrorCallback(std::function<void(const absl::Status&)> done) = 0;

  // One turn of the loop on the calling thread; false if there was nothing to do. Only with
  // manual_stepping.
  virtual bool StepOnce() = 0;
};

}  // namespace hgrn2
