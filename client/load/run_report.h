// One run as a table for people and as JSON for machines. The JSON has the keys of
// `vllm bench serve --save-result`, and under "hgrn2" what those keys have no place for.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "client/load/runner.h"

namespace hgrn2::client {

// What was asked for, to print beside what came out.
struct RunDescription {
  std::string backend = "hgrn2-grpc";
  std::string label;
  std::string model;
  std::string target;
  std::string workload;  // one line
  std::string rate;      // empty: closed loop
  double burstiness = 1;
  int max_concurrency = 0;
  uint64_t seed = 0;
  std::string goodput;  // as given; empty: none
};

nlohmann::ordered_json ToJson(const RunResult& result, const RunDescription& description);

// `run` as made by ToJson.
std::string FormatTable(const nlohmann::ordered_json& run);

// Why the client itself may have limited or distorted the run; empty if it did not.
std::vector<std::string> ClientWarnings(const RunResult& result);

// One line per request, with a heading line. Times in milliseconds.
std::string ToCsv(const RunResult& result);

}  // namespace hgrn2::client
