// One invocation of `load`: its runs, one after the other, and what is written about them.
#pragma once

#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "client/load/load_options.h"

namespace hgrn2::client {

class LoadSession {
 public:
  // REQUIRES: options resolved.
  explicit LoadSession(LoadOptions options);

  // Runs everything, prints, writes the files; what was measured is written also when a signal or
  // an error ends it early. Returns the exit code.
  int Run();

 private:
  void Interrupt();  // on the signal thread
  int ExitCode(const absl::Status& ran, const absl::Status& written) const;
  absl::Status RunSingle();
  absl::Status RunFindMax();
  absl::Status RunSweep();
  // Runs `options` once and appends to report_["runs"]; returns that entry.
  absl::StatusOr<nlohmann::ordered_json*> RunOnce(const LoadOptions& options);
  absl::StatusOr<double> RunSweepPoint(const std::string& kind, double value);
  absl::Status WriteOutputs();

  const LoadOptions options_;
  nlohmann::ordered_json report_{{"runs", nlohmann::ordered_json::array()}};
  std::string csv_;  // of the last run
  std::mutex mu_;
  Runner* runner_ = nullptr;  // the run going on; guarded by mu_
};

}  // namespace hgrn2::client
