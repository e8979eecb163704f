// The live line on a terminal while a run goes on.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "client/load/runner.h"

namespace hgrn2::client {

// `interval_s` seconds passed between the two snapshots. total_s 0: unknown; total_requests 0: too.
std::string FormatProgress(const Progress& now, const Progress& before, double total_s,
                           uint64_t total_requests);

// Prints to stderr every half second (one line in place) from construction to destruction. On
// something that is not a terminal: a line every 10 s.
class ProgressDisplay {
 public:
  // `runner` must outlive this and be connected.
  ProgressDisplay(Runner* runner, const RunnerOptions& options);
  ~ProgressDisplay();

 private:
  void Loop();

  Runner* const runner_;
  const double total_s_;
  const uint64_t total_requests_;
  const bool terminal_;
  std::mutex mu_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace hgrn2::client
