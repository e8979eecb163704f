// The flags of `load`, and what they mean for the parts of the load tool.
#pragma once

#include <hgrn2/v1/inference.pb.h>

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/connection.h"
#include "client/load/runner.h"
#include "client/load/workload.h"

namespace hgrn2::client {

enum class LoadBackend {
  kGrpc,        // hgrn2.v1.Inference/Generate
  kOpenAi,      // HTTP, server-sent events of /v1/completions
  kOpenAiChat,  // the same of /v1/chat/completions
};
// As the JSON result names it.
const char* BackendName(LoadBackend backend);

struct LoadOptions {
  ConnectionOptions connection;
  std::optional<LoadBackend> given_backend;  // unset: by the targets
  LoadBackend backend = LoadBackend::kGrpc;  // set by Resolve
  std::string endpoint;                      // path of HTTP requests; empty: the backend's own
  bool only_openai_fields = false;           // nothing that vLLM added to OpenAI's API
  v1::GenerateRequest base;                  // model and sampling of every request
  std::string model_name;                    // as the server names it, for reports
  RunnerOptions runner;
  WorkloadOptions workload;

  // Parsed by Resolve.
  std::string prompt_tokens = "128";
  std::string output_tokens = "64";
  std::string turns = "1";
  std::string think_time = "0";
  std::string cancel_after = "1";
  std::string deadline = "1";
  std::string priorities;
  std::string goodput;

  std::string label;
  std::string json_path, csv_path, html_path;
  std::vector<std::string> compare;  // JSON files of earlier runs, for the HTML report
  std::string metrics_url;
  bool quiet = false;
  bool print_schedule = false;

  bool find_max = false;
  double good_share = 0.99;       // of requests, for --find-max
  double precision = 0.05;        // relative, of the rate found
  std::string sweep;              // rates, see ParseSweep, or "auto"
  std::string sweep_concurrency;  // concurrencies, the same
};

void AddLoadOptions(CLI::App* app, LoadOptions* options);

// Parses the specifications and checks that the flags fit together.
absl::Status Resolve(LoadOptions* options);

// One line for reports, such as "closed loop, 8 at a time; prompt 128; output uniform:1:64".
std::string DescribeWorkload(const LoadOptions& options);

}  // namespace hgrn2::client
