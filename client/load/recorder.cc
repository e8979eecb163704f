#include "client/load/recorder.h"

#include <fmt/format.h>

#include <algorithm>

#include "client/rpc_error.h"

namespace hgrn2::client {

const char* OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kCompleted:
      return "completed";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kCancelled:
      return "cancelled";
    case Outcome::kDeadline:
      return "deadline";
    case Outcome::kInterrupted:
      return "interrupted";
  }
  return "";
}

std::string RequestRecord::code_name() const {
  return http_status > 0 ? fmt::format("HTTP {}", http_status) : CodeName(code);
}

bool Goodput::IsGood(const RequestRecord& r) const {
  if (r.first < 0) return false;
  if (r.output_tokens > 1 && r.tpot() > tpot) return false;
  return r.ttft() <= ttft && r.max_gap <= itl && r.e2e() <= e2e;
}

SecondStats& Recorder::Second(int64_t now) {
  const auto second = static_cast<size_t>(std::max<int64_t>(now, 0) / 1'000'000'000);
  if (second >= seconds.size()) seconds.resize(second + 1);
  return seconds[second];
}

void Recorder::OnSent(int64_t now, int64_t in_flight) {
  ++Second(now).sent;
  OnInFlight(now, in_flight);
}

void Recorder::OnInFlight(int64_t now, int64_t in_flight) {
  SecondStats& second = Second(now);
  second.max_in_flight = std::max(second.max_in_flight, static_cast<uint32_t>(in_flight));
}

void Recorder::OnTokens(int64_t now, int count) { Second(now).tokens += count; }

void Recorder::OnFirstToken(int64_t now, int64_t ttft_ns) { Second(now).ttft.Add(ttft_ns); }

void Recorder::OnGap(int64_t now, int64_t gap, bool is_warmup) {
  Second(now).itl.Add(gap);
  if (!is_warmup) itl.Add(gap);
}

void Recorder::OnDone(const RequestRecord& r, const std::string& error) {
  if (records.size() < max_records_) records.push_back(r);
  SecondStats& second = Second(r.done);
  if (r.outcome == Outcome::kCompleted) {
    ++second.completed;
    ++finished_ok;
    if (r.last >= 0) second.e2e.Add(r.e2e());
  }
  if (r.outcome == Outcome::kFailed) {
    ++second.failed;
    ++finished_badly;
  }
  if (r.outcome == Outcome::kInterrupted) {
    ++interrupted;
    return;
  }
  if (r.warmup) {
    ++warmup;
    return;
  }
  window_begin = std::min(window_begin, r.intended);
  window_end = std::max(window_end, r.done);
  if (!r.held_back) send_lag.Add(r.sent - r.intended);
  switch (r.outcome) {
    case Outcome::kCancelled:
      ++cancelled;
      return;
    case Outcome::kDeadline:
      ++deadline;
      return;
    case Outcome::kFailed: {
      ++failed;
      const std::string code = r.code_name();
      ++errors[code];
      error_samples.emplace(code, error);
      return;
    }
    default:
      break;
  }
  ++completed;
  good += goodput_.IsGood(r);
  prompt_tokens += r.prompt_tokens;
  output_tokens += r.output_tokens;
  cached_tokens += r.cached_tokens;
  messages += r.messages;
  if (r.first >= 0) {
    ttft.Add(r.ttft());
    e2e.Add(r.e2e());
    if (r.output_tokens > 1) tpot.Add(r.tpot());
  }
  if (r.server_queue_s >= 0) {
    server_queue.Add(static_cast<int64_t>(r.server_queue_s * 1e9));
    server_prefill.Add(static_cast<int64_t>(r.server_prefill_s * 1e9));
  }
}

void Recorder::Merge(const Recorder& o) {
  ttft.Merge(o.ttft);
  tpot.Merge(o.tpot);
  itl.Merge(o.itl);
  e2e.Merge(o.e2e);
  server_queue.Merge(o.server_queue);
  server_prefill.Merge(o.server_prefill);
  send_lag.Merge(o.send_lag);
  completed += o.completed;
  failed += o.failed;
  cancelled += o.cancelled;
  deadline += o.deadline;
  interrupted += o.interrupted;
  warmup += o.warmup;
  good += o.good;
  finished_ok += o.finished_ok;
  finished_badly += o.finished_badly;
  prompt_tokens += o.prompt_tokens;
  output_tokens += o.output_tokens;
  cached_tokens += o.cached_tokens;
  messages += o.messages;
  window_begin = std::min(window_begin, o.window_begin);
  window_end = std::max(window_end, o.window_end);
  for (const auto& [code, count] : o.errors) errors[code] += count;
  error_samples.insert(o.error_samples.begin(), o.error_samples.end());
  if (o.seconds.size() > seconds.size()) seconds.resize(o.seconds.size());
  for (size_t i = 0; i < o.seconds.size(); ++i) {
    SecondStats& mine = seconds[i];
    const SecondStats& theirs = o.seconds[i];
    mine.sent += theirs.sent;
    mine.completed += theirs.completed;
    mine.failed += theirs.failed;
    mine.tokens += theirs.tokens;
    mine.max_in_flight = std::max(mine.max_in_flight, theirs.max_in_flight);
    mine.ttft.Merge(theirs.ttft);
    mine.itl.Merge(theirs.itl);
    mine.e2e.Merge(theirs.e2e);
  }
  records.insert(records.end(), o.records.begin(), o.records.end());
}

}  // namespace hgrn2::client
