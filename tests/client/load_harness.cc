#include "tests/client/load_harness.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "client/load/backend.h"

namespace hgrn2::client {

Distribution ParseDistribution(const std::string& spec) {
  return Distribution::Parse("--test", spec, 0).value();
}

LoadOptions MakeLoadOptions(std::vector<std::string> targets) {
  LoadOptions o;
  o.connection.targets = std::move(targets);
  o.prompt_tokens = "8";
  o.output_tokens = "3";
  o.runner.max_requests = 1;
  o.workload.vocab_size = 100;
  const absl::Status status = Resolve(&o);
  EXPECT_TRUE(status.ok()) << status;
  o.runner.max_requests = 0;
  o.runner.max_concurrency = 0;
  return o;
}

RunResult RunLoad(const LoadOptions& options) {
  auto workload = Workload::Create(options.workload).value();
  Runner runner(options.runner, workload.get(), [&] { return MakeTransport(options); });
  const absl::Status status = runner.Connect();
  EXPECT_TRUE(status.ok()) << status;
  return runner.Run();
}

Script Tokens(std::vector<double> at_s) {
  Script script;
  script.token_at_s = std::move(at_s);
  return script;
}

uint64_t SessionOf(const v1::GenerateRequest& request) {
  return std::stoull(request.request_id().substr(5));
}

double Percentile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double rank = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(rank);
  const size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (rank - static_cast<double>(low)) * (values[high] - values[low]);
}

Expected FromServer(const RunResult& result, const std::map<std::string, Served>& served) {
  Expected expected;
  for (const RequestRecord& r : result.recorder.records) {
    const auto& written = served.at("load-" + std::to_string(r.session) + "-0").written;
    const SteadyTime intended = result.started + std::chrono::nanoseconds(r.intended);
    const auto ms = [](SteadyTime from, SteadyTime to) {
      return std::chrono::duration<double, std::milli>(to - from).count();
    };
    expected.ttft_ms.push_back(ms(intended, written.front()));
    expected.e2el_ms.push_back(ms(intended, written.back()));
    expected.tpot_ms.push_back(ms(written.front(), written.back()) /
                               static_cast<double>(written.size() - 1));
    for (size_t i = 1; i < written.size(); ++i) {
      expected.itl_ms.push_back(ms(written[i - 1], written[i]));
    }
  }
  return expected;
}

double WorstError(const nlohmann::ordered_json& json, const Expected& expected,
                  std::string* which) {
  double worst = 0;
  const std::pair<const char*, const std::vector<double>*> metrics[] = {
      {"ttft", &expected.ttft_ms},
      {"tpot", &expected.tpot_ms},
      {"itl", &expected.itl_ms},
      {"e2el", &expected.e2el_ms}};
  for (const auto& [name, values] : metrics) {
    const auto check = [&, name = name](const std::string& statistic, double exact) {
      const std::string key = statistic + "_" + name + "_ms";
      const double error = std::abs(json.at(key).get<double>() - exact) / exact;
      if (error > worst) {
        worst = error;
        *which = key + " = " + json.at(key).dump() + ", expected " + std::to_string(exact);
      }
    };
    double sum = 0;
    for (double v : *values) sum += v;
    check("mean", sum / static_cast<double>(values->size()));
    check("p50", Percentile(*values, 0.5));
    check("p90", Percentile(*values, 0.9));
    check("p95", Percentile(*values, 0.95));
    check("p99", Percentile(*values, 0.99));
  }
  return worst;
}

}  // namespace hgrn2::client
