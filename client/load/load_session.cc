#include "client/load/load_session.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>

#include "client/commands.h"
#include "client/interrupt.h"
#include "client/load/backend.h"
#include "client/load/html_report.h"
#include "client/load/metrics_scraper.h"
#include "client/load/progress_display.h"
#include "client/load/run_report.h"
#include "client/load/search.h"
#include "client/load/spec.h"
#include "client/text_io.h"

namespace hgrn2::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxAutoRuns = 20;
constexpr double kSaturatedGain = 1.05;  // less than this from doubling the load: saturated

RunDescription Describe(const LoadOptions& options) {
  RunDescription d;
  d.label = options.label;
  d.model = options.model_name;
  d.backend = BackendName(options.backend);
  d.target = fmt::format("{}", fmt::join(options.connection.targets, ","));
  d.workload = DescribeWorkload(options);
  d.rate = options.workload.rate;
  d.burstiness = options.workload.burstiness;
  d.max_concurrency = options.runner.max_concurrency;
  d.seed = options.workload.seed;
  d.goodput = options.goodput;
  return d;
}

std::string Dump(const Json& json) {
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void PrintSweepHeading(const std::string& kind) {
  fmt::print("{:>12}{:>10}{:>10}{:>11}{:>11}{:>11}{:>10}{:>10}{:>11}{:>8}\n", kind, "req/s",
             "good %", "out tok/s", "ttft p50", "ttft p99", "itl p50", "itl p99", "e2el p99",
             "failed");
}

void PrintSweepLine(double value, const Json& run) {
  const auto number = [&](const char* key) { return run.at(key).get<double>(); };
  const Json& extra = run.at("hgrn2");
  const std::string good = extra.contains("good_share")
                               ? fmt::format("{:.2f}", extra["good_share"].get<double>() * 100)
                               : "-";
  // The time in which a short run's last answers only end would make it look slower than it is.
  const Json& steady = extra.at("steady_output_throughput");
  const double tokens = steady.is_null() ? number("output_throughput") : steady.get<double>();
  fmt::print(
      "{:>12.4g}{:>10.2f}{:>10}{:>11.1f}{:>11.2f}{:>11.2f}{:>10.3f}{:>10.3f}{:>11.2f}{:>8}\n",
      value, number("request_throughput"), good, tokens, number("p50_ttft_ms"),
      number("p99_ttft_ms"), number("p50_itl_ms"), number("p99_itl_ms"), number("p99_e2el_ms"),
      run.at("failed").dump());
  std::fflush(stdout);
}

// Good ones of all requests that had their chance; what a give-up cut off was not good.
double GoodShare(const Json& run) {
  const Json& extra = run.at("hgrn2");
  const double all = run.at("completed").get<double>() + run.at("failed").get<double>() +
                     extra.at("deadline_exceeded").get<double>() +
                     extra.at("interrupted").get<double>();
  return all > 0 ? extra.at("good").get<double>() / all : 0;
}

}  // namespace

LoadSession::LoadSession(LoadOptions options) : options_(std::move(options)) {}

void LoadSession::Interrupt() {
  std::lock_guard lock(mu_);
  if (runner_ != nullptr) runner_->Stop();
}

absl::StatusOr<Json*> LoadSession::RunOnce(const LoadOptions& options) {
  auto workload = Workload::Create(options.workload);
  if (!workload.ok()) return workload.status();
  Runner runner(options.runner, workload->get(), [&] { return MakeTransport(options); });
  if (absl::Status status = runner.Connect(); !status.ok()) return status;
  {
    std::lock_guard lock(mu_);
    if (Interrupted()) return absl::CancelledError("interrupted");
    runner_ = &runner;
  }
  std::unique_ptr<MetricsScraper> scraper;
  if (!options.metrics_url.empty())
    scraper = std::make_unique<MetricsScraper>(options.metrics_url, options.connection);
  std::unique_ptr<ProgressDisplay> progress;
  if (!options.quiet) progress = std::make_unique<ProgressDisplay>(&runner, options.runner);
  const RunResult result = runner.Run();
  progress.reset();
  {
    std::lock_guard lock(mu_);
    runner_ = nullptr;
  }
  Json run = ToJson(result, Describe(options));
  if (scraper != nullptr) run["hgrn2"]["server_metrics"] = scraper->Finish();
  if (!options.csv_path.empty()) csv_ = ToCsv(result);
  report_["runs"].push_back(std::move(run));
  return &report_["runs"].back();
}

absl::Status LoadSession::RunSingle() {
  absl::StatusOr<Json*> run = RunOnce(options_);
  if (!run.ok()) return run.status();
  fmt::print("{}\n{}", (**run)["hgrn2"]["workload"].get<std::string>(), FormatTable(**run));
  return absl::OkStatus();
}

absl::StatusOr<double> LoadSession::RunSweepPoint(const std::string& kind, double value) {
  LoadOptions options = options_;
  if (kind == "rate") {
    options.workload.rate = fmt::format("{:.6g}", value);
  } else {
    options.runner.max_concurrency = std::max(1, static_cast<int>(std::lround(value)));
    options.workload.rate.clear();
  }
  absl::StatusOr<Json*> run = RunOnce(options);
  if (!run.ok()) return run.status();
  (**run)["hgrn2"]["sweep_kind"] = kind;
  (**run)["hgrn2"]["sweep_value"] = value;
  PrintSweepLine(value, **run);
  if (Interrupted()) return absl::CancelledError("interrupted");
  const Json& steady = (**run)["hgrn2"]["steady_output_throughput"];
  return steady.is_null() ? (**run)["output_throughput"].get<double>() : steady.get<double>();
}

absl::Status LoadSession::RunSweep() {
  const bool closed = !options_.sweep_concurrency.empty();
  const std::string kind = closed ? "concurrency" : "rate";
  const std::string& spec = closed ? options_.sweep_concurrency : options_.sweep;
  if (spec != "auto") {
    absl::StatusOr<std::vector<double>> values = ParseSweep(spec);
    if (!values.ok()) return values.status();
    PrintSweepHeading(kind);
    for (const double value : *values) {
      if (const auto done = RunSweepPoint(kind, value); !done.ok()) return done.status();
    }
    return absl::OkStatus();
  }
  PrintSweepHeading(kind);
  double previous = 0;
  double value = closed ? 1 : ParseNumber(options_.workload.rate).value_or(1);
  for (int i = 0; i < kMaxAutoRuns; ++i, value *= 2) {
    const absl::StatusOr<double> throughput = RunSweepPoint(kind, value);
    if (!throughput.ok()) return throughput.status();
    if (*throughput < previous * kSaturatedGain) break;
    previous = *throughput;
  }
  return absl::OkStatus();
}

absl::Status LoadSession::RunFindMax() {
  FindMaxOptions search;
  search.precision = options_.precision;
  if (!options_.workload.rate.empty()) {
    absl::StatusOr<double> start = ParseNumber(options_.workload.rate);
    if (!start.ok() || *start <= 0 || std::isinf(*start)) {
      return absl::InvalidArgumentError("--find-max starts at --rate R, a number above 0");
    }
    search.start = *start;
  }
  PrintSweepHeading("rate");
  const absl::StatusOr<double> rate = FindMaxRate(search, [this](double r) -> absl::StatusOr<bool> {
    if (const auto done = RunSweepPoint("rate", r); !done.ok()) return done.status();
    return GoodShare(report_["runs"].back()) >= options_.good_share;
  });
  if (!rate.ok()) return rate.status();
  report_["find_max"] = {{"rate", *rate},
                         {"goodput", options_.goodput},
                         {"good_share", options_.good_share},
                         {"precision", options_.precision}};
  fmt::print("Highest rate with {} for {:g} % of requests: {:.4g} requests/s{}\n", options_.goodput,
             options_.good_share * 100, *rate, Interrupted() ? " (search was interrupted)" : "");
  if (*rate == 0) return absl::NotFoundError("no rate met the goodput");
  return absl::OkStatus();
}

absl::Status LoadSession::WriteOutputs() {
  const Json& runs = report_["runs"];
  if (runs.empty()) return absl::OkStatus();
  const bool single = runs.size() == 1 && !report_.contains("find_max");
  if (!options_.json_path.empty()) {
    absl::Status status = WriteFile(options_.json_path, Dump(single ? runs.front() : report_));
    if (!status.ok()) return status;
  }
  if (!options_.csv_path.empty()) {
    if (absl::Status status = WriteFile(options_.csv_path, csv_); !status.ok()) return status;
  }
  if (options_.html_path.empty()) return absl::OkStatus();
  Json all = report_;
  for (const std::string& path : options_.compare) {
    absl::StatusOr<Json> earlier = ReadRuns(path);
    if (!earlier.ok()) return earlier.status();
    for (Json& run : *earlier) all["runs"].push_back(std::move(run));
  }
  return WriteFile(options_.html_path, HtmlReport(all));
}

int LoadSession::ExitCode(const absl::Status& ran, const absl::Status& written) const {
  if (Interrupted()) return kInterruptedExitCode;
  if (ran.code() == absl::StatusCode::kInvalidArgument) return kUsageError;
  if (!ran.ok() || !written.ok()) return 1;
  return report_.at("runs").back().at("completed") > 0 ? 0 : 1;
}

int LoadSession::Run() {
  // For all runs and the pauses between them: a signal must never lose what was measured.
  InterruptHandler on_interrupt([this] { Interrupt(); });
  absl::Status status;
  if (options_.find_max) {
    status = RunFindMax();
  } else if (!options_.sweep.empty() || !options_.sweep_concurrency.empty()) {
    status = RunSweep();
  } else {
    status = RunSingle();
  }
  const absl::Status written = WriteOutputs();
  for (const absl::Status& s : {status, written}) {
    if (s.ok() || (Interrupted() && s.code() == absl::StatusCode::kCancelled)) continue;
    fmt::print(stderr, "hgrn2-client: load: {}\n", std::string(s.message()));
  }
  return ExitCode(status, written);
}

}  // namespace hgrn2::client
