// What one run measured. Times are nanoseconds on the steady clock since the start of the run.
#pragma once

#include <grpcpp/support/status_code_enum.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "client/load/histogram.h"

namespace hgrn2::client {

enum class Outcome : uint8_t {
  kCompleted,
  kFailed,
  kCancelled,    // by the workload's own plan
  kDeadline,     // of a request the workload gave a deadline
  kInterrupted,  // still running when the run was stopped; counted, in no statistic
};
const char* OutcomeName(Outcome outcome);

struct RequestRecord {
  uint64_t session = 0;
  int32_t turn = 0;
  int32_t target = 0;
  // Latencies count from here: when the schedule wanted it sent (closed loop: when it was sent).
  int64_t intended = 0;
  int64_t sent = 0;
  int64_t first = -1;   // first token received; -1: none
  int64_t last = -1;    // last token received
  int64_t done = 0;     // status received
  int64_t max_gap = 0;  // longest wait between two messages with tokens
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  int32_t messages = 0;  // that carried tokens
  int32_t cached_tokens = 0;
  int32_t priority = 0;
  float server_queue_s = -1;  // -1: not reported
  float server_prefill_s = -1;
  float server_decode_s = -1;
  grpc::StatusCode code = grpc::StatusCode::OK;
  int32_t http_status = 0;  // of a refusal over HTTP, else 0
  Outcome outcome = Outcome::kCompleted;
  bool warmup = false;
  bool held_back = false;  // waited for a place under --concurrency

  int64_t ttft() const { return first - intended; }
  int64_t e2e() const { return last - intended; }
  // "HTTP 429" or "RESOURCE_EXHAUSTED".
  std::string code_name() const;
  // Time per output token after the first; REQUIRES output_tokens > 1.
  int64_t tpot() const { return (last - first) / (output_tokens - 1); }
};

// Limits in nanoseconds; a request is good if it completed within all of them.
struct Goodput {
  int64_t ttft = INT64_MAX;
  int64_t tpot = INT64_MAX;
  int64_t itl = INT64_MAX;  // the longest gap
  int64_t e2e = INT64_MAX;
  bool given = false;

  bool IsGood(const RequestRecord& r) const;
};

// One second of the run, by the clock of the client.
struct SecondStats {
  uint32_t sent = 0;
  uint32_t completed = 0;
  uint32_t failed = 0;
  uint64_t tokens = 0;
  uint32_t max_in_flight = 0;
  Histogram ttft{6};  // of requests whose first token came in this second
  Histogram itl{6};
  Histogram e2e{6};
};

// Filled by one thread at a time; one per polling thread, merged at the end.
class Recorder {
 public:
  Recorder(Goodput goodput, size_t max_records) : goodput_(goodput), max_records_(max_records) {}

  void OnSent(int64_t now, int64_t in_flight);
  void OnInFlight(int64_t now, int64_t in_flight);
  void OnTokens(int64_t now, int count);
  void OnFirstToken(int64_t now, int64_t ttft);
  void OnGap(int64_t now, int64_t gap, bool warmup);
  void OnDone(const RequestRecord& record, const std::string& error);
  void Merge(const Recorder& other);

  // Of completed requests outside the warm-up.
  Histogram ttft, tpot, itl, e2e, server_queue, server_prefill;
  // Sent minus intended, of requests that were not held back on purpose.
  Histogram send_lag;
  uint64_t completed = 0, failed = 0, cancelled = 0, deadline = 0, interrupted = 0, warmup = 0;
  uint64_t good = 0;
  uint64_t finished_ok = 0, finished_badly = 0;  // warm-up included, for progress displays
  uint64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0, messages = 0;
  int64_t window_begin = INT64_MAX;  // first intended time and last end of a measured request
  int64_t window_end = 0;
  std::map<std::string, uint64_t> errors;            // by status code
  std::map<std::string, std::string> error_samples;  // one message for each
  std::vector<SecondStats> seconds;
  std::vector<RequestRecord> records;  // the first max_records, warm-up included

 private:
  SecondStats& Second(int64_t now);

  Goodput goodput_;
  size_t max_records_;
};

}  // namespace hgrn2::client
