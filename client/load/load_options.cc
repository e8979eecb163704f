#include "client/load/load_options.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "client/http_url.h"
#include "client/load/spec.h"
#include "client/sampling_flags.h"

namespace hgrn2::client {
namespace {

void AddArrivalOptions(CLI::App* app, LoadOptions* o) {
  constexpr char kGroup[] = "Arrivals";
  app->add_option("--concurrency,--max-concurrency", o->runner.max_concurrency,
                  "Requests (or sessions) at a time. Without --rate: closed loop (default 1)")
      ->check(CLI::Range(1, 1'000'000))
      ->group(kGroup);
  app->add_option("--rate,--request-rate", o->workload.rate,
                  "Open loop, requests/s: R, inf, ramp:FROM:TO:SECONDS or step:R1,R2,...:SECONDS")
      ->group(kGroup);
  static const std::map<std::string, ArrivalKind> kinds = {{"poisson", ArrivalKind::kPoisson},
                                                           {"constant", ArrivalKind::kConstant},
                                                           {"gamma", ArrivalKind::kGamma}};
  app->add_option("--arrival", o->workload.arrival, "poisson (default), constant or gamma")
      ->transform(CLI::CheckedTransformer(kinds))
      ->group(kGroup);
  app->add_option_function<double>(
         "--burstiness",
         [o](const double& v) {
           o->workload.burstiness = v;
           o->workload.arrival = ArrivalKind::kGamma;
         },
         "Gamma arrivals of this shape: below 1 burstier than Poisson, above 1 more regular")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  app->add_option("--trace", o->workload.trace,
                  "JSON lines {\"at\": seconds, \"prompt_tokens\", \"output_tokens\", ...}")
      ->group(kGroup);
  app->add_option("--trace-speed", o->workload.trace_speed, "Play the trace this much faster")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  app->add_option("--requests,--num-prompts", o->runner.max_requests,
                  "Requests (or sessions) to measure")
      ->group(kGroup);
  app->add_option("--duration", o->runner.duration_s,
                  "Seconds of sending to measure (default 10, if --requests is not given)")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  app->add_option("--warmup", o->runner.warmup_s, "Seconds before measuring")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  app->add_option("--warmup-requests,--num-warmups", o->runner.warmup_requests,
                  "Requests before measuring")
      ->group(kGroup);
  app->add_option("--drain", o->runner.drain_s, "Seconds to wait for answers after sending")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(kGroup);
  app->add_option("--seed", o->workload.seed, "The same seed sends the same requests")
      ->capture_default_str()
      ->group(kGroup);
}

void AddRequestOptions(CLI::App* app, LoadOptions* o) {
  constexpr char kGroup[] = "Requests (SPEC: N, uniform:A:B, lognormal:MEDIAN:SIGMA[:A:B], file:F)";
  const auto spec = [&](const char* names, std::string* value, const char* help) {
    app->add_option(names, *value, help)->type_name("SPEC")->capture_default_str()->group(kGroup);
  };
  spec("--prompt-tokens,--random-input-len", &o->prompt_tokens, "Random token ids per prompt");
  spec("--output-tokens,--random-output-len", &o->output_tokens, "max_tokens per request");
  app->add_option("--prompts", o->workload.prompts, "File of prompts: texts or {\"prompt\": text}")
      ->group(kGroup);
  app->add_option("--prefix-tokens,--random-prefix-len", o->workload.prefix_tokens,
                  "Beginning shared between prompts, added to --prompt-tokens")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  app->add_option("--prefix-groups", o->workload.prefix_groups, "Number of different beginnings")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  app->add_option("--prefix-share", o->workload.prefix_share, "Fraction of prompts that have one")
      ->check(CLI::Range(0.0, 1.0))
      ->group(kGroup);
  spec("--turns", &o->turns, "Requests per session, each continuing the last one's text");
  spec("--think-time", &o->think_time, "Seconds between an answer and the next turn");
  app->add_option("--priorities", o->priorities, "Priorities and weights: 0:0.8,10:0.2")
      ->group(kGroup);
  app->add_option("--cancel-share", o->workload.cancel_share, "Fraction of requests cancelled")
      ->check(CLI::Range(0.0, 1.0))
      ->group(kGroup);
  spec("--cancel-after", &o->cancel_after, "Tokens received before cancelling");
  app->add_option("--deadline-share", o->workload.deadline_share, "Fraction with a deadline")
      ->check(CLI::Range(0.0, 1.0))
      ->group(kGroup);
  spec("--deadline", &o->deadline, "Deadline of those, seconds");
  app->add_option("--vocab-size", o->workload.vocab_size, "Instead of asking the server")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  app->add_option_function<std::string>(
         "--model", [o](const std::string& v) { o->base.set_model(v); }, "Served model name")
      ->group(kGroup);
}

void AddOutputOptions(CLI::App* app, LoadOptions* o) {
  constexpr char kGroup[] = "Output";
  app->add_option(
         "--goodput", o->goodput,
         "Limits of a good request in ms: ttft:200,tpot:30,itl:50,e2el:5000 (itl: longest)")
      ->group(kGroup);
  app->add_option("--label", o->label, "Name of the run in reports")->group(kGroup);
  app->add_option("--json", o->json_path, "Write the result as JSON (keys of vllm bench serve)")
      ->group(kGroup);
  app->add_option("--csv", o->csv_path, "Write one line per request")->group(kGroup);
  app->add_option("--html", o->html_path, "Write a self-contained report with charts")
      ->group(kGroup);
  app->add_option("--compare", o->compare, "JSON of an earlier run, to show in --html; repeatable")
      ->allow_extra_args(false)
      ->group(kGroup);
  app->add_option("--metrics-url", o->metrics_url,
                  "Server's Prometheus endpoint to read beside the run, http://HOST:8000/metrics")
      ->group(kGroup);
  app->add_flag("--quiet", o->quiet, "No progress display")->group(kGroup);
  app->add_flag("--print-schedule", o->print_schedule,
                "Print what would be sent, as a trace, and send nothing")
      ->group(kGroup);
}

void AddSearchOptions(CLI::App* app, LoadOptions* o) {
  constexpr char kGroup[] = "Search (each rate is run for --duration or --requests)";
  auto* find = app->add_flag("--find-max", o->find_max,
                             "Find the highest rate that meets --goodput, starting at --rate")
                   ->group(kGroup);
  app->add_option("--good-share", o->good_share, "Share of requests that must be good")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(kGroup);
  app->add_option("--precision", o->precision, "Relative precision of the rate found")
      ->check(CLI::Range(0.001, 1.0))
      ->capture_default_str()
      ->group(kGroup);
  auto* sweep = app->add_option("--sweep", o->sweep,
                                "Run at rates R1,R2,... or FROM:TO:COUNT, or 'auto': double the "
                                "rate until throughput stops growing")
                    ->excludes(find)
                    ->group(kGroup);
  app->add_option("--sweep-concurrency", o->sweep_concurrency, "The same with closed loops")
      ->excludes(find)
      ->excludes(sweep)
      ->group(kGroup);
}

void AddClientOptions(CLI::App* app, LoadOptions* o) {
  constexpr char kGroup[] = "Client";
  app->add_option("--connections", o->runner.connections,
                  "TCP connections to each target (HTTP: at least; one per request in flight)")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str()
      ->group(kGroup);
  app->add_option("--threads", o->runner.threads, "Polling threads")
      ->check(CLI::Range(1, 256))
      ->capture_default_str()
      ->group(kGroup);
  app->add_option("--max-records", o->runner.max_records,
                  "Requests kept one by one, for --csv and the timeline")
      ->capture_default_str()
      ->group(kGroup);
}

void AddBackendOptions(CLI::App* app, LoadOptions* o) {
  constexpr char kGroup[] = "Connection";
  static const std::map<std::string, LoadBackend> kinds = {
      {"hgrn2-grpc", LoadBackend::kGrpc},
      {"grpc", LoadBackend::kGrpc},
      {"openai", LoadBackend::kOpenAi},
      {"vllm", LoadBackend::kOpenAi},
      {"openai-chat", LoadBackend::kOpenAiChat}};
  app->add_option_function<LoadBackend>(
         "--backend,--transport", [o](const LoadBackend& backend) { o->given_backend = backend; },
         "hgrn2-grpc, openai (/v1/completions) or openai-chat. Default: openai for a --target "
         "http://... or https://..., else hgrn2-grpc")
      ->transform(CLI::CheckedTransformer(kinds, CLI::ignore_case))
      ->group(kGroup);
  app->add_option("--endpoint", o->endpoint, "Path of HTTP requests, instead of the backend's own")
      ->group(kGroup);
  app->add_flag("--only-openai-fields", o->only_openai_fields,
                "Leave out what vLLM added to OpenAI's API, such as ignore_eos and top_k")
      ->group(kGroup);
}

absl::Status ResolveGoodput(LoadOptions* o) {
  if (o->goodput.empty()) return absl::OkStatus();
  auto pairs = ParsePairs(o->goodput);
  if (!pairs.ok()) {
    return absl::InvalidArgumentError("--goodput: " + std::string(pairs.status().message()));
  }
  Goodput& limits = o->runner.goodput;
  const std::map<std::string, int64_t*> names = {{"ttft", &limits.ttft},
                                                 {"tpot", &limits.tpot},
                                                 {"itl", &limits.itl},
                                                 {"e2el", &limits.e2e},
                                                 {"e2e", &limits.e2e}};
  for (const auto& [name, ms] : *pairs) {
    const auto it = names.find(name);
    if (it == names.end() || !(ms > 0) || std::isinf(ms)) {
      return absl::InvalidArgumentError(fmt::format(
          "--goodput '{}:{:g}': expected ttft, tpot, itl or e2el and milliseconds > 0", name, ms));
    }
    *it->second = static_cast<int64_t>(ms * 1e6);
  }
  limits.given = true;
  return absl::OkStatus();
}

absl::Status ResolvePriorities(LoadOptions* o) {
  auto pairs = ParsePairs(o->priorities);
  if (!pairs.ok()) {
    return absl::InvalidArgumentError("--priorities: " + std::string(pairs.status().message()));
  }
  for (const auto& [name, weight] : *pairs) {
    absl::StatusOr<double> priority = ParseNumber(name);
    if (!priority.ok() || std::abs(*priority) > 100 || !(weight >= 0) || std::isinf(weight)) {
      return absl::InvalidArgumentError(
          fmt::format("--priorities '{}:{:g}': expected PRIORITY:WEIGHT", name, weight));
    }
    o->workload.priorities.emplace_back(static_cast<int>(*priority), weight);
  }
  return absl::OkStatus();
}

// Targets that are URLs are HTTP, others gRPC; --backend must not contradict them.
absl::Status ResolveBackend(LoadOptions* o) {
  size_t urls = 0;
  for (const std::string& target : o->connection.targets) {
    if (!IsHttpUrl(target)) continue;
    ++urls;
    if (auto url = ParseHttpUrl(target); !url.ok()) return url.status();
  }
  if (urls != 0 && urls != o->connection.targets.size()) {
    return absl::InvalidArgumentError("--target: either all are http(s) URLs, or none");
  }
  o->backend = o->given_backend.value_or(urls > 0 ? LoadBackend::kOpenAi : LoadBackend::kGrpc);
  const bool http = o->backend != LoadBackend::kGrpc;
  if (http != (urls > 0)) {
    return absl::InvalidArgumentError(
        fmt::format("--backend {} needs --target {}", BackendName(o->backend),
                    http ? "http://HOST:PORT or https://HOST:PORT" : "HOST:PORT"));
  }
  if (!http && (!o->endpoint.empty() || o->only_openai_fields)) {
    return absl::InvalidArgumentError("--endpoint and --only-openai-fields are for HTTP targets");
  }
  if (!o->endpoint.empty() && o->endpoint[0] != '/') {
    return absl::InvalidArgumentError("--endpoint: a path begins with '/'");
  }
  if (o->backend == LoadBackend::kOpenAiChat && o->turns != "1") {
    return absl::InvalidArgumentError("--turns needs --backend openai or hgrn2-grpc");
  }
  return absl::OkStatus();
}

}  // namespace

const char* BackendName(LoadBackend backend) {
  switch (backend) {
    case LoadBackend::kOpenAi:
      return "openai";
    case LoadBackend::kOpenAiChat:
      return "openai-chat";
    default:
      return "hgrn2-grpc";
  }
}

void AddLoadOptions(CLI::App* app, LoadOptions* options) {
  AddArrivalOptions(app, options);
  AddRequestOptions(app, options);
  AddOutputOptions(app, options);
  AddSearchOptions(app, options);
  AddClientOptions(app, options);
  // The schedule decides lengths, and one choice is what latencies are defined for.
  options->base.mutable_sampling()->set_ignore_eos(true);
  options->base.mutable_sampling()->set_temperature(0);
  AddSamplingOptions(app, options->base.mutable_sampling(), {"max_tokens", "n", "seed"});
  AddConnectionOptions(app, &options->connection);
  AddBackendOptions(app, options);
}

absl::Status Resolve(LoadOptions* o) {
  if (absl::Status status = ResolveBackend(o); !status.ok()) return status;
  o->runner.timeout_s = o->connection.timeout_s;
  const std::tuple<const char*, const std::string*, double, Distribution*> specs[] = {
      {"--prompt-tokens", &o->prompt_tokens, 1, &o->workload.prompt_tokens},
      {"--output-tokens", &o->output_tokens, 1, &o->workload.output_tokens},
      {"--turns", &o->turns, 1, &o->workload.turns},
      {"--think-time", &o->think_time, 0, &o->workload.think_time},
      {"--cancel-after", &o->cancel_after, 0, &o->workload.cancel_after},
      {"--deadline", &o->deadline, 1e-3, &o->workload.deadline}};
  for (const auto& [name, spec, min, distribution] : specs) {
    absl::StatusOr<Distribution> parsed = Distribution::Parse(name, *spec, min);
    if (!parsed.ok()) return parsed.status();
    *distribution = *std::move(parsed);
  }
  if (absl::Status status = ResolveGoodput(o); !status.ok()) return status;
  if (absl::Status status = ResolvePriorities(o); !status.ok()) return status;
  const bool closed = o->workload.rate.empty() && o->workload.trace.empty();
  if (closed && o->runner.max_concurrency == 0) o->runner.max_concurrency = 1;
  if (o->runner.max_requests == 0 && o->runner.duration_s == 0 && o->workload.trace.empty()) {
    o->runner.duration_s = 10;
  }
  if (o->find_max && o->goodput.empty()) {
    return absl::InvalidArgumentError("--find-max needs --goodput");
  }
  if ((o->find_max || !o->sweep.empty() || !o->sweep_concurrency.empty()) &&
      !o->workload.trace.empty()) {
    return absl::InvalidArgumentError("--find-max and --sweep exclude --trace");
  }
  if (o->workload.rate == "inf" && o->runner.max_requests == 0) {
    return absl::InvalidArgumentError("--rate inf needs --requests");
  }
  return absl::OkStatus();
}

std::string DescribeWorkload(const LoadOptions& o) {
  std::string text;
  const WorkloadOptions& w = o.workload;
  if (!w.trace.empty()) {
    text = fmt::format("trace {} at {:g}x", w.trace, w.trace_speed);
  } else if (w.rate.empty()) {
    text = fmt::format("closed loop, {} at a time", o.runner.max_concurrency);
  } else {
    const char* kinds[] = {"Poisson", "constant", "gamma"};
    text = fmt::format("{} arrivals, {} requests/s", kinds[static_cast<int>(w.arrival)], w.rate);
    if (w.arrival == ArrivalKind::kGamma) text += fmt::format(" (burstiness {:g})", w.burstiness);
    if (o.runner.max_concurrency > 0)
      text += fmt::format(", at most {} at a time", o.runner.max_concurrency);
  }
  if (w.prompts.empty())
    text += "; prompt " + o.prompt_tokens + " tokens";
  else
    text += "; prompts of " + w.prompts;
  text += "; output " + o.output_tokens + " tokens";
  if (w.prefix_tokens > 0) {
    text += fmt::format("; {} shared prefixes of {} tokens for {:g} %", w.prefix_groups,
                        w.prefix_tokens, w.prefix_share * 100);
  }
  if (o.turns != "1") text += fmt::format("; {} turns, {} s apart", o.turns, o.think_time);
  if (w.cancel_share > 0) text += fmt::format("; {:g} % cancelled", w.cancel_share * 100);
  if (w.deadline_share > 0) text += fmt::format("; {:g} % with a deadline", w.deadline_share * 100);
  return text;
}

}  // namespace hgrn2::client
