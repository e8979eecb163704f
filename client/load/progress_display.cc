#include "client/load/progress_display.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace hgrn2::client {

std::string FormatProgress(const Progress& now, const Progress& before, double total_s,
                           uint64_t total_requests) {
  const double seconds = std::max(1e-9, now.elapsed_s - before.elapsed_s);
  const double rate = static_cast<double>(now.completed - before.completed) / seconds;
  std::string line = fmt::format(
      "{:6.1f} s  {:>7} done  {:>5} in flight  {:8.1f} req/s  {:9.0f} tok/s  ttft p50 {:.1f} p99 "
      "{:.1f} ms  itl p50 {:.2f} p99 {:.2f} ms",
      now.elapsed_s, now.completed, now.in_flight, rate,
      static_cast<double>(now.tokens - before.tokens) / seconds, now.ttft.Quantile(0.5) / 1e6,
      now.ttft.Quantile(0.99) / 1e6, now.itl.Quantile(0.5) / 1e6, now.itl.Quantile(0.99) / 1e6);
  if (now.failed > 0) line += fmt::format("  {} failed", now.failed);
  double left = -1;
  if (total_s > 0) left = total_s - now.elapsed_s;
  if (total_requests > 0 && now.elapsed_s > 0 && now.completed > 0) {
    const double done = static_cast<double>(now.completed + now.failed);
    const double by_count = (static_cast<double>(total_requests) - done) * now.elapsed_s / done;
    left = left < 0 ? by_count : std::min(left, by_count);
  }
  if (left > 0) line += fmt::format("  ETA {:.0f} s", left);
  return line;
}

ProgressDisplay::ProgressDisplay(Runner* runner, const RunnerOptions& options)
    : runner_(runner),
      total_s_(options.duration_s > 0 ? options.warmup_s + options.duration_s : 0),
      total_requests_(options.max_requests > 0 ? options.max_requests + options.warmup_requests
                                               : 0),
      terminal_(isatty(STDERR_FILENO) != 0),
      thread_([this] { Loop(); }) {}

ProgressDisplay::~ProgressDisplay() {
  {
    std::lock_guard lock(mu_);
    done_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (terminal_) fmt::print(stderr, "\r\033[K");
}

void ProgressDisplay::Loop() {
  const auto interval = std::chrono::milliseconds(terminal_ ? 500 : 10'000);
  Progress before;
  std::unique_lock lock(mu_);
  while (!changed_.wait_for(lock, interval, [this] { return done_; })) {
    const Progress now = runner_->Snapshot();
    const std::string line = FormatProgress(now, before, total_s_, total_requests_);
    if (terminal_)
      fmt::print(stderr, "\r\033[K{}", line);
    else
      fmt::print(stderr, "{}\n", line);
    std::fflush(stderr);
    before = now;
  }
}

}  // namespace hgrn2::client
