// hgrn2-client load: a workload against one or more servers, measured.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/commands.h"
#include "client/load/backend.h"
#include "client/load/html_report.h"
#include "client/load/load_options.h"
#include "client/load/load_session.h"
#include "client/text_io.h"

namespace hgrn2::client {
namespace {

using Json = nlohmann::ordered_json;

int Fail(const absl::Status& status) {
  fmt::print(stderr, "hgrn2-client: load: {}\n", std::string(status.message()));
  return status.code() == absl::StatusCode::kInvalidArgument ? kUsageError : 1;
}

int PrintSchedule(const LoadOptions& options) {
  auto workload = Workload::Create(options.workload);
  if (!workload.ok()) return Fail(workload.status());
  const RunnerOptions& r = options.runner;
  for (uint64_t i = 0; r.max_requests == 0 || i < r.warmup_requests + r.max_requests; ++i) {
    const std::optional<PlannedRequest> plan = (*workload)->Next();
    if (!plan || (r.duration_s > 0 && plan->at_s >= r.warmup_s + r.duration_s)) break;
    if ((*workload)->closed_loop() && r.max_requests == 0) {
      return Fail(absl::InvalidArgumentError("--print-schedule of a closed loop needs --requests"));
    }
    Json json{{"at", plan->at_s},
              {"prompt_tokens", plan->prompt_tokens},
              {"output_tokens", plan->output_tokens},
              {"priority", plan->priority}};
    if (plan->cancel_after >= 0) json["cancel_after"] = plan->cancel_after;
    if (plan->deadline_s > 0) json["deadline"] = plan->deadline_s;
    fmt::print("{}\n", json.dump());
  }
  return 0;
}

int RunLoad(LoadOptions options) {
  if (absl::Status status = Resolve(&options); !status.ok()) return Fail(status);
  if (options.print_schedule) {
    if (options.workload.vocab_size == 0) options.workload.vocab_size = 1 << 15;  // ids are unused
    return PrintSchedule(options);
  }
  if (absl::Status status = AskModel(&options); !status.ok()) return Fail(status);
  return LoadSession(std::move(options)).Run();
}

int RunReport(const std::vector<std::string>& inputs, const std::string& output) {
  Json report{{"runs", Json::array()}};
  for (const std::string& path : inputs) {
    absl::StatusOr<Json> runs = ReadRuns(path);
    if (!runs.ok()) return Fail(runs.status());
    for (Json& run : *runs) report["runs"].push_back(std::move(run));
  }
  const absl::Status written = WriteFile(output, HtmlReport(report));
  return written.ok() ? 0 : Fail(written);
}

}  // namespace

void AddLoadCommand(CLI::App* app, Action* action) {
  auto options = std::make_shared<LoadOptions>();
  CLI::App* sub = app->add_subcommand("load", "Load test: throughput and latency of the server");
  AddLoadOptions(sub, options.get());
  sub->callback([options, action] { *action = [options] { return RunLoad(*options); }; });
}

void AddReportCommand(CLI::App* app, Action* action) {
  auto inputs = std::make_shared<std::vector<std::string>>();
  auto output = std::make_shared<std::string>();
  CLI::App* sub = app->add_subcommand("report", "Charts of results of 'load --json', side by side");
  sub->add_option("inputs", *inputs, "JSON files")->required();
  sub->add_option("--html", *output, "File to write")->required();
  sub->callback([=] { *action = [inputs, output] { return RunReport(*inputs, *output); }; });
}

}  // namespace hgrn2::client
