#include "client/load/run_report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <iterator>

#include "client/load/spec.h"

namespace hgrn2::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNanosPerMs = 1e6;
constexpr double kPollerBusyShare = 0.8;
constexpr double kSendLagMs = 5;

double Ratio(double a, double b) { return b > 0 ? a / b : 0; }

void AddLatency(const std::string& name, const Histogram& h, Json* json) {
  const auto set = [&](const std::string& statistic, double nanos) {
    (*json)[fmt::format("{}_{}_ms", statistic, name)] = nanos / kNanosPerMs;
  };
  set("mean", h.Mean());
  set("median", h.Quantile(0.5));
  set("std", h.StdDev());
  set("p50", h.Quantile(0.5));
  set("p90", h.Quantile(0.9));
  set("p95", h.Quantile(0.95));
  set("p99", h.Quantile(0.99));
  set("p99.9", h.Quantile(0.999));
  set("max", static_cast<double>(h.Max()));
}

Json CdfJson(const Histogram& h) {
  Json points = Json::array();
  for (const auto& [value, share] : h.Cdf(200)) {
    points.push_back({value / kNanosPerMs, share});
  }
  return points;
}

Json SeriesJson(const std::vector<SecondStats>& seconds) {
  Json series = Json::array();
  for (size_t i = 0; i < seconds.size(); ++i) {
    const SecondStats& s = seconds[i];
    Json point{{"t", i},
               {"sent", s.sent},
               {"completed", s.completed},
               {"failed", s.failed},
               {"tokens", s.tokens},
               {"in_flight", s.max_in_flight}};
    const std::pair<const char*, const Histogram*> latencies[] = {
        {"ttft", &s.ttft}, {"itl", &s.itl}, {"e2el", &s.e2e}};
    for (const auto& [name, h] : latencies) {
      if (h->count() == 0) continue;
      point[name] = {h->Quantile(0.5) / kNanosPerMs, h->Quantile(0.9) / kNanosPerMs,
                     h->Quantile(0.99) / kNanosPerMs};
    }
    series.push_back(std::move(point));
  }
  return series;
}

// The requests in flight during the second with the longest wait for or between tokens, as
// [sent, first, last, done, outcome] in seconds: what a bad second looked like.
Json WorstSecondJson(const std::vector<RequestRecord>& records) {
  constexpr size_t kMaxRows = 120;
  int64_t worst_wait = -1;
  int64_t worst_at = 0;
  for (const RequestRecord& r : records) {
    if (r.warmup || r.first < 0) continue;
    const int64_t wait = std::max(r.ttft(), r.max_gap);
    if (wait > worst_wait) {
      worst_wait = wait;
      worst_at = r.ttft() >= r.max_gap ? r.first : r.last;
    }
  }
  if (worst_wait < 0) return nullptr;
  const int64_t end = worst_at + 100'000'000;
  const int64_t begin = end - std::max<int64_t>(1'000'000'000, worst_wait + 200'000'000);
  Json rows = Json::array();
  size_t total = 0;
  for (const RequestRecord& r : records) {
    if (r.done < begin || r.intended > end) continue;
    if (++total > kMaxRows) continue;
    const auto seconds = [](int64_t t) { return t < 0 ? -1.0 : static_cast<double>(t) * 1e-9; };
    rows.push_back({seconds(r.intended), seconds(r.sent), seconds(r.first), seconds(r.last),
                    seconds(r.done), static_cast<double>(r.max_gap) * 1e-9,
                    OutcomeName(r.outcome)});
  }
  return {{"begin", static_cast<double>(begin) * 1e-9},
          {"end", static_cast<double>(end) * 1e-9},
          {"requests_in_flight", total},
          {"rows", std::move(rows)}};
}

// A number where the rate is one, as the reference tool writes it.
Json RateJson(const std::string& rate) {
  if (rate.empty()) return "inf";
  const absl::StatusOr<double> number = ParseNumber(rate);
  return number.ok() && std::isfinite(*number) ? Json(*number) : Json(rate);
}

Json ClientJson(const RunResult& result) {
  const ClientCpu& cpu = result.cpu;
  return {{"cpu_share", Ratio(cpu.process_s, cpu.wall_s)},
          {"poller_cpu_share", Ratio(cpu.busiest_poller_s, cpu.wall_s)},
          {"poller_wait_share", Ratio(cpu.poller_wait_s, cpu.wall_s)},
          {"send_lag_p50_ms", result.recorder.send_lag.Quantile(0.5) / kNanosPerMs},
          {"send_lag_p99_ms", result.recorder.send_lag.Quantile(0.99) / kNanosPerMs},
          {"send_lag_max_ms", static_cast<double>(result.recorder.send_lag.Max()) / kNanosPerMs}};
}

// Tokens received per second while requests were being sent, in whole seconds. Without the time in
// which the last answers only end, which the rates of the whole run have in them.
Json SteadyOutputThroughput(const RunResult& result) {
  const auto begin = static_cast<size_t>(std::ceil(result.sending_begin_s));
  const auto end = static_cast<size_t>(std::max(0.0, std::floor(result.sending_end_s)));
  if (end <= begin) return nullptr;  // too short to say
  uint64_t tokens = 0;
  const auto& seconds = result.recorder.seconds;
  for (size_t i = begin; i < std::min(end, seconds.size()); ++i) tokens += seconds[i].tokens;
  return static_cast<double>(tokens) / static_cast<double>(end - begin);
}

void AddPeaks(const std::vector<SecondStats>& seconds, Json* json) {
  uint64_t tokens = 0;
  uint32_t in_flight = 0;
  for (const SecondStats& s : seconds) {
    tokens = std::max(tokens, s.tokens);
    in_flight = std::max(in_flight, s.max_in_flight);
  }
  (*json)["max_output_tokens_per_s"] = tokens;
  (*json)["max_concurrent_requests"] = in_flight;
}

Json DetailsJson(const RunResult& result, const RunDescription& d) {
  const Recorder& r = result.recorder;
  Json json{{"label", d.label},
            {"target", d.target},
            {"workload", d.workload},
            {"seed", d.seed},
            {"goodput", d.goodput},
            {"good", r.good},
            {"stopped", result.stopped},
            {"steady_output_throughput", SteadyOutputThroughput(result)},
            {"warmup_requests", r.warmup},
            {"cancelled", r.cancelled},
            {"deadline_exceeded", r.deadline},
            {"interrupted", r.interrupted},
            {"cached_tokens", r.cached_tokens},
            {"tokens_per_message",
             Ratio(static_cast<double>(r.output_tokens), static_cast<double>(r.messages))}};
  json["errors"] = Json::object();
  for (const auto& [code, count] : r.errors) {
    json["errors"][code] = {{"count", count}, {"example", r.error_samples.at(code)}};
  }
  json["client"] = ClientJson(result);
  json["warnings"] = ClientWarnings(result);
  json["cdf"] = {{"ttft", CdfJson(r.ttft)},
                 {"tpot", CdfJson(r.tpot)},
                 {"itl", CdfJson(r.itl)},
                 {"e2el", CdfJson(r.e2e)}};
  json["series"] = SeriesJson(r.seconds);
  json["worst_second"] = WorstSecondJson(r.records);
  return json;
}

}  // namespace

Json ToJson(const RunResult& result, const RunDescription& d) {
  const Recorder& r = result.recorder;
  const auto per_second = [&](uint64_t n) {
    return Ratio(static_cast<double>(n), result.duration_s);
  };
  const std::time_t started = static_cast<std::time_t>(result.started_unix);
  Json json{{"date", fmt::format("{:%Y%m%d-%H%M%S}", fmt::gmtime(started))},
            {"backend", d.backend},
            {"label", d.label},
            {"model_id", d.model},
            {"num_prompts", r.completed + r.failed + r.cancelled + r.deadline}};
  json["request_rate"] = RateJson(d.rate);
  json["burstiness"] = d.burstiness;
  json["max_concurrency"] = d.max_concurrency > 0 ? Json(d.max_concurrency) : Json(nullptr);
  json["duration"] = result.duration_s;
  json["completed"] = r.completed;
  json["failed"] = r.failed;
  json["total_input_tokens"] = r.prompt_tokens;
  json["total_output_tokens"] = r.output_tokens;
  json["request_throughput"] = per_second(r.completed);
  json["request_goodput"] = d.goodput.empty() ? Json(nullptr) : Json(per_second(r.good));
  json["output_throughput"] = per_second(r.output_tokens);
  json["total_token_throughput"] = per_second(r.output_tokens + r.prompt_tokens);
  AddPeaks(r.seconds, &json);
  AddLatency("ttft", r.ttft, &json);
  AddLatency("tpot", r.tpot, &json);
  AddLatency("itl", r.itl, &json);
  AddLatency("e2el", r.e2e, &json);
  AddLatency("queue", r.server_queue, &json);
  AddLatency("prefill", r.server_prefill, &json);
  json["hgrn2"] = DetailsJson(result, d);
  if (!d.goodput.empty()) {
    const uint64_t judged = r.completed + r.failed;
    json["hgrn2"]["good_share"] = Ratio(static_cast<double>(r.good), static_cast<double>(judged));
  }
  return json;
}

std::vector<std::string> ClientWarnings(const RunResult& result) {
  std::vector<std::string> warnings;
  const ClientCpu& cpu = result.cpu;
  const double busy = Ratio(cpu.busiest_poller_s, cpu.wall_s);
  const double starved = Ratio(cpu.poller_wait_s, cpu.wall_s);
  if (busy > kPollerBusyShare) {
    warnings.push_back(
        fmt::format("the client is the bottleneck: its polling thread used {:.0f} % "
                    "of a core; raise --threads",
                    busy * 100));
  }
  if (starved > 0.1) {
    warnings.push_back(
        fmt::format("the client waited for a CPU {:.0f} % of the time: latencies "
                    "are too long; give it a core of its own",
                    starved * 100));
  }
  const double lag = result.recorder.send_lag.Quantile(0.99) / kNanosPerMs;
  if (lag > kSendLagMs) {
    warnings.push_back(
        fmt::format("requests left late (p99 {:.1f} ms after their intended time, "
                    "counted in the latencies)",
                    lag));
  }
  return warnings;
}

std::string FormatTable(const Json& run) {
  std::string out;
  const auto line = [&](std::string_view name, const std::string& value) {
    out += fmt::format("{:<42}{:>14}\n", name, value);
  };
  const Json& extra = run.at("hgrn2");
  out += fmt::format("{:=^56}\n", " Load test result ");
  if (!extra.at("label").get<std::string>().empty()) {
    line("Label:", extra.at("label").get<std::string>());
  }
  line("Successful requests:", run.at("completed").dump());
  line("Failed requests:", run.at("failed").dump());
  for (const auto& [code, error] : extra.at("errors").items()) {
    line("  " + code + ":", error.at("count").dump());
  }
  const std::pair<const char*, const char*> rare[] = {
      {"cancelled", "Cancelled by plan:"},
      {"deadline_exceeded", "Ended by their planned deadline:"},
      {"interrupted", "Interrupted (not counted):"},
      {"warmup_requests", "Warm-up requests (not counted):"}};
  for (const auto& [key, name] : rare) {
    if (extra.at(key) != 0) line(name, extra.at(key).dump());
  }
  const auto number = [&](const char* key, const char* name) {
    if (!run.at(key).is_null()) line(name, fmt::format("{:.2f}", run.at(key).get<double>()));
  };
  number("duration", "Measured duration (s):");
  line("Total input tokens:", run.at("total_input_tokens").dump());
  line("Total generated tokens:", run.at("total_output_tokens").dump());
  number("request_throughput", "Request throughput (req/s):");
  number("request_goodput", "Request goodput (req/s):");
  if (extra.contains("good_share")) {
    line("Good requests (%):", fmt::format("{:.2f}", extra.at("good_share").get<double>() * 100));
  }
  number("output_throughput", "Output token throughput (tok/s):");
  if (!extra.at("steady_output_throughput").is_null()) {
    line("  while sending (tok/s):",
         fmt::format("{:.2f}", extra.at("steady_output_throughput").get<double>()));
  }
  number("max_output_tokens_per_s", "Peak output token throughput (tok/s):");
  number("max_concurrent_requests", "Peak concurrent requests:");
  number("total_token_throughput", "Total token throughput (tok/s):");
  out += fmt::format("{:-<88}\n", "");
  out += fmt::format("{:<22}{:>9}{:>9}{:>9}{:>9}{:>9}{:>10}{:>10}\n", "milliseconds", "mean", "std",
                     "p50", "p90", "p95", "p99", "max");
  const std::pair<const char*, const char*> latencies[] = {
      {"ttft", "Time to first token"}, {"tpot", "Time per token"}, {"itl", "Inter-token latency"},
      {"e2el", "End to end"},          {"queue", "Server: queue"}, {"prefill", "Server: prefill"}};
  for (const auto& [key, name] : latencies) {
    out += fmt::format("{:<22}", name);
    for (const char* statistic : {"mean", "std", "p50", "p90", "p95", "p99", "max"}) {
      const double ms = run.at(fmt::format("{}_{}_ms", statistic, key)).get<double>();
      const int width = statistic[0] == 'm' && statistic[1] == 'a' ? 10
                        : std::string_view(statistic) == "p99"     ? 10
                                                                   : 9;
      out += fmt::format("{:>{}.{}f}", ms, width, ms < 100 ? 3 : ms < 10000 ? 2 : 0);
    }
    out += '\n';
  }
  const Json& client = extra.at("client");
  out += fmt::format("Client: {:.0f} % of a core; requests sent {:.2f} ms (p99) after their time\n",
                     client.at("cpu_share").get<double>() * 100,
                     client.at("send_lag_p99_ms").get<double>());
  for (const Json& warning : extra.at("warnings")) {
    out += "WARNING: " + warning.get<std::string>() + "\n";
  }
  for (const auto& [code, error] : extra.at("errors").items()) {
    out += fmt::format("First {}: {}\n", code, error.at("example").get<std::string>());
  }
  return out;
}

std::string ToCsv(const RunResult& result) {
  std::string csv =
      "session,turn,target,outcome,code,warmup,priority,prompt_tokens,cached_tokens,output_tokens,"
      "messages,intended_ms,send_lag_ms,ttft_ms,tpot_ms,max_itl_ms,e2el_ms,done_ms,server_queue_ms,"
      "server_prefill_ms,server_decode_ms\n";
  auto out = std::back_inserter(csv);
  const auto ms = [](int64_t nanos) { return static_cast<double>(nanos) / kNanosPerMs; };
  const auto server = [&](float seconds) {
    if (seconds < 0)
      fmt::format_to(out, ",");
    else
      fmt::format_to(out, ",{:.3f}", seconds * 1e3);
  };
  for (const RequestRecord& r : result.recorder.records) {
    fmt::format_to(out, "{},{},{},{},{},{},{},{},{},{},{},{:.3f},{:.3f}", r.session, r.turn,
                   r.target, OutcomeName(r.outcome), r.code_name(), r.warmup ? 1 : 0, r.priority,
                   r.prompt_tokens, r.cached_tokens, r.output_tokens, r.messages, ms(r.intended),
                   ms(r.sent - r.intended));
    if (r.first < 0)
      fmt::format_to(out, ",,,,");
    else {
      fmt::format_to(out, ",{:.3f},", ms(r.ttft()));
      if (r.output_tokens > 1) fmt::format_to(out, "{:.3f}", ms(r.tpot()));
      fmt::format_to(out, ",{:.3f},{:.3f}", ms(r.max_gap), ms(r.e2e()));
    }
    fmt::format_to(out, ",{:.3f}", ms(r.done));
    server(r.server_queue_s);
    server(r.server_prefill_s);
    server(r.server_decode_s);
    fmt::format_to(out, "\n");
  }
  return csv;
}

}  // namespace hgrn2::client
