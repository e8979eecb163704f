#include "client/load/recorder.h"

#include <gtest/gtest.h>

#include <sstream>

#include "client/load/run_report.h"

namespace hgrn2::client {
namespace {

constexpr int64_t kMs = 1'000'000;

// Sent 1 ms late; first token after ttft ms, then one every gap ms.
RequestRecord Record(int64_t intended_ms, int64_t ttft_ms, int64_t gap_ms, int tokens) {
  RequestRecord r;
  r.intended = intended_ms * kMs;
  r.sent = r.intended + kMs;
  r.first = r.intended + ttft_ms * kMs;
  r.last = r.first + gap_ms * (tokens - 1) * kMs;
  r.done = r.last + 2 * kMs;
  r.max_gap = tokens > 1 ? gap_ms * kMs : 0;
  r.prompt_tokens = 10;
  r.output_tokens = tokens;
  r.messages = tokens;
  r.server_queue_s = 0.25F;
  r.server_prefill_s = 0.5F;
  return r;
}

RunResult Result(const Goodput& goodput, const std::vector<RequestRecord>& records) {
  RunResult result{Recorder(goodput, 1000), {}};
  for (const RequestRecord& r : records)
    result.recorder.OnDone(r, "message of " + std::to_string(r.session));
  result.duration_s = 10;
  return result;
}

TEST(Recorder, ComputesTheLatenciesOfVllmBench) {
  std::vector<RequestRecord> records;
  for (int i = 1; i <= 101; ++i) records.push_back(Record(100 * i, 10 * i, i, 11));
  const auto json = ToJson(Result({}, records), {});
  EXPECT_EQ(json["completed"], 101);
  EXPECT_EQ(json["total_input_tokens"], 1010);
  EXPECT_EQ(json["total_output_tokens"], 1111);
  EXPECT_DOUBLE_EQ(json["output_throughput"], 111.1);
  EXPECT_DOUBLE_EQ(json["total_token_throughput"], 212.1);
  const auto near = [&](const char* key, double expected) {
    EXPECT_NEAR(json[key].get<double>(), expected, 0.0006 * expected) << key;
  };
  near("mean_ttft_ms", 510);
  near("median_ttft_ms", 510);
  near("p90_ttft_ms", 910);
  near("p99_ttft_ms", 1000);
  near("mean_tpot_ms", 51);
  near("p95_tpot_ms", 96);
  near("p99_e2el_ms", 1000 + 10 * 100);
  near("std_ttft_ms", 10 * 29.154759);
  near("p50_queue_ms", 250);
  near("p50_prefill_ms", 500);
}

TEST(Recorder, CountsOnlyWhatItShould) {
  std::vector<RequestRecord> records(7, Record(0, 100, 10, 5));
  records[0].warmup = true;
  records[1].outcome = Outcome::kFailed;
  records[1].code = grpc::StatusCode::RESOURCE_EXHAUSTED;
  records[1].session = 1;
  records[2].outcome = Outcome::kCancelled;
  records[3].outcome = Outcome::kDeadline;
  records[4].outcome = Outcome::kInterrupted;
  const RunResult result = Result({}, records);
  EXPECT_EQ(result.recorder.ttft.count(), 2u);
  const auto json = ToJson(result, {});
  EXPECT_EQ(json["completed"], 2);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["hgrn2"]["warmup_requests"], 1);
  EXPECT_EQ(json["hgrn2"]["cancelled"], 1);
  EXPECT_EQ(json["hgrn2"]["deadline_exceeded"], 1);
  EXPECT_EQ(json["hgrn2"]["interrupted"], 1);
  EXPECT_EQ(json["hgrn2"]["errors"]["RESOURCE_EXHAUSTED"]["count"], 1);
  EXPECT_EQ(json["hgrn2"]["errors"]["RESOURCE_EXHAUSTED"]["example"], "message of 1");
  EXPECT_NE(FormatTable(json).find("RESOURCE_EXHAUSTED"), std::string::npos);
}

TEST(Recorder, GoodputNeedsEveryLimit) {
  Goodput limits;
  limits.ttft = 200 * kMs;
  limits.tpot = 20 * kMs;
  limits.itl = 30 * kMs;
  limits.given = true;
  std::vector<RequestRecord> records = {
      Record(0, 200, 20, 9),   // at the limits: good
      Record(0, 201, 20, 9),   // first token late
      Record(0, 100, 21, 9),   // slow
      Record(0, 100, 10, 9),   // one long gap, below
      Record(0, 100, 999, 1),  // a single token has no tpot: good
  };
  records[3].max_gap = 31 * kMs;
  RunDescription description;
  description.goodput = "ttft:200,tpot:20,itl:30";
  const auto json = ToJson(Result(limits, records), description);
  EXPECT_DOUBLE_EQ(json["request_goodput"], 0.2);
  EXPECT_DOUBLE_EQ(json["hgrn2"]["good_share"], 0.4);
}

TEST(Recorder, MergesLikeOne) {
  RunResult a = Result({}, {Record(0, 100, 10, 5), Record(1500, 300, 10, 5)});
  const RunResult b = Result({}, {Record(700, 200, 10, 5)});
  a.recorder.Merge(b.recorder);
  const RunResult all =
      Result({}, {Record(0, 100, 10, 5), Record(1500, 300, 10, 5), Record(700, 200, 10, 5)});
  auto merged = ToJson(a, {});
  auto whole = ToJson(all, {});
  merged["hgrn2"].erase("worst_second");  // lists requests in the order they were recorded
  whole["hgrn2"].erase("worst_second");
  EXPECT_EQ(merged, whole);
}

TEST(Recorder, WarnsWhenTheClientIsTheBottleneck) {
  RunResult result = Result({}, {Record(0, 100, 10, 5)});
  result.cpu = {10, 3, 2, 0.1};
  EXPECT_TRUE(ClientWarnings(result).empty());
  result.cpu = {10, 9.5, 9, 0.1};
  EXPECT_EQ(ClientWarnings(result).size(), 1u);
  result.cpu = {10, 9.5, 9, 3};
  EXPECT_EQ(ClientWarnings(result).size(), 2u);
  result.recorder.send_lag.Add(50 * kMs);
  EXPECT_EQ(ClientWarnings(result).size(), 3u);
  EXPECT_NE(FormatTable(ToJson(result, {})).find("WARNING"), std::string::npos);
}

TEST(Recorder, KeysOfVllmBenchServeAreThere) {
  const auto json = ToJson(Result({}, {Record(0, 100, 10, 5)}), {});
  std::vector<std::string> keys = {"date",
                                   "model_id",
                                   "num_prompts",
                                   "request_rate",
                                   "burstiness",
                                   "max_concurrency",
                                   "duration",
                                   "completed",
                                   "failed",
                                   "total_input_tokens",
                                   "total_output_tokens",
                                   "request_throughput",
                                   "request_goodput",
                                   "output_throughput",
                                   "total_token_throughput",
                                   "max_output_tokens_per_s",
                                   "max_concurrent_requests"};
  for (const char* statistic : {"mean", "median", "std", "p50", "p90", "p95", "p99"}) {
    for (const char* metric : {"ttft", "tpot", "itl", "e2el"}) {
      keys.push_back(std::string(statistic) + "_" + metric + "_ms");
    }
  }
  for (const std::string& key : keys) EXPECT_TRUE(json.contains(key)) << key;
}

TEST(Recorder, CsvHasALinePerRequest) {
  std::vector<RequestRecord> records = {Record(0, 100, 10, 5), Record(50, 120, 10, 1)};
  records.push_back(Record(60, 0, 0, 1));
  records.back().first = records.back().last = -1;
  records.back().outcome = Outcome::kFailed;
  std::istringstream csv(ToCsv(Result({}, records)));
  std::string line;
  std::getline(csv, line);
  const auto columns = std::count(line.begin(), line.end(), ',');
  int lines = 0;
  while (std::getline(csv, line)) {
    EXPECT_EQ(std::count(line.begin(), line.end(), ','), columns) << line;
    ++lines;
  }
  EXPECT_EQ(lines, 3);
}

}  // namespace
}  // namespace hgrn2::client
