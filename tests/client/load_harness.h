// What tests of whole load runs have in common: set-ups, and the check of reported statistics
// against what the server did.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "client/load/load_options.h"
#include "client/load/runner.h"
#include "client/load/workload.h"
#include "tests/client/scripted_server.h"

namespace hgrn2::client {

Distribution ParseDistribution(const std::string& spec);

// Prompts of 8 and outputs of 3 tokens, to `targets`; URLs are HTTP.
LoadOptions MakeLoadOptions(std::vector<std::string> targets);

RunResult RunLoad(const LoadOptions& options);

Script Tokens(std::vector<double> at_s);

// Index of the session, from the request's id.
uint64_t SessionOf(const v1::GenerateRequest& request);

// numpy.percentile
double Percentile(std::vector<double> values, double q);

struct Expected {
  std::vector<double> ttft_ms, tpot_ms, itl_ms, e2el_ms;
};

// What the server did, by its own clock: each request's tokens as written, counted from the time at
// which the schedule wanted it sent.
Expected FromServer(const RunResult& result, const std::map<std::string, Served>& served);

// Largest relative error of any reported statistic.
double WorstError(const nlohmann::ordered_json& json, const Expected& expected, std::string* which);

// Delays are real, so a machine that is busy with something else can spoil a measurement: a check
// to 1 % may be tried again. It never passes by luck: an error of the method is there every time.
template <typename Attempt>
void WithinOnePercent(Attempt attempt) {
  std::string which;
  double error = 1;
  for (int i = 0; i < 4 && error > 0.01; ++i) error = attempt(&which);
  EXPECT_LE(error, 0.01) << which;
}

}  // namespace hgrn2::client
