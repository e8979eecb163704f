// hgrn2-client score: log-probabilities of continuations, one context or a file of them.
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "client/commands.h"
#include "client/interrupt.h"
#include "client/json_output.h"
#include "client/rpc_error.h"
#include "client/score_pipeline.h"
#include "client/score_request.h"
#include "client/text_io.h"

namespace hgrn2::client {
namespace {

using Json = nlohmann::ordered_json;

struct ScoreOptions {
  ConnectionOptions connection;
  v1::ScoreRequest base;  // fields common to all lines
  std::string context;
  std::string context_tokens;
  std::vector<std::string> continuations;
  std::string input;
  bool json = false;
  bool details = false;
  bool stats = false;
  int concurrency = 64;
  int max_retries = 10;
};

// Sums over all lines; written on the emitting thread, read after Finish.
struct Totals {
  uint64_t lines = 0;
  uint64_t failed = 0;
  uint64_t tokens = 0;
  uint64_t prompt_tokens = 0;
  double sum_logprob = 0;
  uint64_t compared = 0;    // lines with two or more continuations
  uint64_t first_best = 0;  // of these: the first scored above all others
};

void Count(const v1::ScoreResponse& response, Totals* totals) {
  totals->prompt_tokens += response.usage().prompt_tokens();
  double best_other = -INFINITY;
  for (int i = 0; i < response.scores_size(); ++i) {
    const auto& score = response.scores(i);
    totals->tokens += score.tokens_size();
    totals->sum_logprob += score.sum_logprob();
    if (i > 0) best_other = std::max(best_other, score.sum_logprob());
  }
  if (response.scores_size() > 1) {
    ++totals->compared;
    totals->first_best += response.scores(0).sum_logprob() > best_other;
  }
}

Json ScoreJson(const v1::ContinuationScore& score, bool details) {
  Json json{{"sum_logprob", score.sum_logprob()},
            {"is_greedy", score.is_greedy()},
            {"num_tokens", score.tokens_size()}};
  if (details) {
    Json tokens = Json::array();
    for (const auto& token : score.tokens()) tokens.push_back(ToJson(token));
    json["tokens"] = std::move(tokens);
  }
  return json;
}

void PrintLine(const ScoreOptions& options, const ScorePipeline::Result& result) {
  const v1::ScoreResponse& response = result.response;
  if (options.json) {
    Json json{{"index", result.index}};
    if (!response.request_id().empty()) json["id"] = response.request_id();
    if (result.status.ok()) {
      json["scores"] = Json::array();
      for (const auto& score : response.scores()) {
        json["scores"].push_back(ScoreJson(score, options.details));
      }
      json["usage"] = ToJson(response.usage());
    } else {
      json["error"] = {{"code", CodeName(result.status.error_code())},
                       {"message", result.status.error_message()}};
    }
    std::fputs(DumpLine(json).c_str(), stdout);
    return;
  }
  for (int i = 0; i < response.scores_size(); ++i) {
    const auto& score = response.scores(i);
    const int n = score.tokens_size();
    fmt::print("{:>6} {:>5} {:>7} {:>14.6f} {:>11.6f} {:>6}\n", result.index, i, n,
               score.sum_logprob(), n > 0 ? score.sum_logprob() / n : 0.0,
               score.is_greedy() ? "yes" : "no");
    if (!options.details) continue;
    for (const auto& token : score.tokens()) {
      PrintGenerated(fmt::format(
          "{:>20} {:>12.6f} rank {:<6} {}\n", token.token_id(), token.logprob(), token.rank(),
          Json(token.token()).dump(-1, ' ', false, Json::error_handler_t::replace)));
    }
  }
}

void PrintTotals(const Totals& totals, double seconds) {
  fmt::print(stderr,
             "{} lines ({} failed), {} scored tokens in {:.2f} s: {:.1f} lines/s, {:.0f} "
             "tokens/s\n",
             totals.lines, totals.failed, totals.tokens, seconds, totals.lines / seconds,
             totals.tokens / seconds);
  if (totals.tokens > 0) {
    const double loss = -totals.sum_logprob / static_cast<double>(totals.tokens);
    fmt::print(stderr, "mean negative log-probability {:.6f} nats per token (perplexity {:.4f})\n",
               loss, std::exp(loss));
  }
  if (totals.compared > 0) {
    fmt::print(
        stderr, "first continuation best: {} of {} lines ({:.3f} %)\n", totals.first_best,
        totals.compared,
        100.0 * static_cast<double>(totals.first_best) / static_cast<double>(totals.compared));
  }
}

// The one request of the command line's own arguments.
absl::StatusOr<v1::ScoreRequest> RequestFromArguments(const ScoreOptions& options) {
  v1::ScoreRequest request = options.base;
  if (!options.context_tokens.empty()) {
    absl::StatusOr<std::vector<int32_t>> ids = ParseTokenIds(options.context_tokens);
    if (!ids.ok()) return ids.status();
    request.mutable_context()->mutable_tokens()->mutable_ids()->Assign(ids->begin(), ids->end());
  } else if (!options.context.empty()) {
    request.mutable_context()->set_text(options.context);
  }
  for (const std::string& text : options.continuations) request.add_continuations()->set_text(text);
  return request;
}

// Submits every line of the input. A malformed line ends the run: its number is in the status.
absl::Status SubmitLines(const ScoreOptions& options, std::istream* in, ScorePipeline* pipeline) {
  std::string line;
  for (uint64_t number = 1; std::getline(*in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    absl::StatusOr<v1::ScoreRequest> request = ParseScoreLine(line, options.base);
    if (!request.ok()) {
      return absl::InvalidArgumentError(fmt::format("{} line {}: {}", options.input, number,
                                                    std::string(request.status().message())));
    }
    if (!pipeline->Submit(*std::move(request))) break;
  }
  return absl::OkStatus();
}

absl::Status SubmitAll(const ScoreOptions& options, ScorePipeline* pipeline) {
  if (options.input.empty()) {
    absl::StatusOr<v1::ScoreRequest> request = RequestFromArguments(options);
    if (!request.ok()) return request.status();
    pipeline->Submit(*std::move(request));
    return absl::OkStatus();
  }
  if (options.input == "-") return SubmitLines(options, &std::cin, pipeline);
  std::ifstream file(options.input);
  if (!file) return absl::NotFoundError(options.input + ": cannot be opened");
  return SubmitLines(options, &file, pipeline);
}

int RunScore(const ScoreOptions& options) {
  const auto fail = [](const absl::Status& status) {
    fmt::print(stderr, "hgrn2-client: score: {}\n", std::string(status.message()));
    return kUsageError;
  };
  if (options.input.empty() == options.continuations.empty()) {
    return fail(absl::InvalidArgumentError("give either continuations or --input"));
  }
  auto channel = MakeChannel(options.connection, options.connection.target());
  if (!channel.ok()) return fail(channel.status());
  Totals totals;
  if (!options.json) {
    fmt::print("{:>6} {:>5} {:>7} {:>14} {:>11} {:>6}\n", "line", "cont", "tokens", "sum_logprob",
               "per_token", "greedy");
  }
  const auto start = std::chrono::steady_clock::now();
  ScorePipeline pipeline(*channel, options.connection, options.concurrency, options.max_retries,
                         [&](const ScorePipeline::Result& result) {
                           ++totals.lines;
                           if (result.status.ok())
                             Count(result.response, &totals);
                           else if (++totals.failed == 1 || !options.json) {
                             ReportStatus(result.status,
                                          fmt::format("score line {}", result.index));
                           }
                           PrintLine(options, result);
                         });
  InterruptHandler on_interrupt([&pipeline] { pipeline.Cancel(); });
  const absl::Status submitted = SubmitAll(options, &pipeline);
  pipeline.Finish();
  std::fflush(stdout);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  if (options.stats) PrintTotals(totals, elapsed.count());
  if (!submitted.ok()) return fail(submitted);
  if (Interrupted()) return kInterruptedExitCode;
  return totals.failed == 0 ? 0 : 1;
}

}  // namespace

void AddScoreCommand(CLI::App* app, Action* action) {
  auto options = std::make_shared<ScoreOptions>();
  CLI::App* sub = app->add_subcommand("score", "Log-probabilities of continuations of a context");
  v1::ScoreRequest* base = &options->base;
  sub->add_option("continuations", options->continuations, "Texts to score");
  auto* context = sub->add_option("--context", options->context, "Context text (default: BOS)");
  sub->add_option("--context-tokens", options->context_tokens, "Context token ids '1,2,3'")
      ->excludes(context);
  sub->add_option("--input", options->input,
                  "JSON lines {\"context\": text or [ids], \"continuations\": [text or [ids], ...],"
                  " \"id\": text}; '-': standard input");
  sub->add_flag("--json", options->json, "One JSON line per context");
  sub->add_flag("--details", options->details, "Every token's log-probability and rank");
  sub->add_flag("--stats", options->stats,
                "Totals to stderr: speed, loss, share of lines whose first continuation is best");
  sub->add_option("--concurrency", options->concurrency, "Requests in flight")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  sub->add_option("--max-retries", options->max_retries, "Tries after the server was full")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option_function<std::string>(
      "--model", [base](const std::string& v) { base->set_model(v); }, "Served model name");
  sub->add_option_function<int32_t>(
      "--top-logprobs,--top_logprobs", [base](const int32_t& v) { base->set_top_logprobs(v); },
      "Alternatives per token, [0, 20]");
  sub->add_option_function<int32_t>(
      "--priority", [base](const int32_t& v) { base->set_priority(v); },
      "Lower is scheduled first, [-100, 100]");
  sub->add_flag(
      "--add-special-tokens,--add_special_tokens,!--no-add-special-tokens",
      [base](int64_t n) { base->set_add_special_tokens(n > 0); },
      "Apply the tokenizer's template to a text context (default on)");
  AddConnectionOptions(sub, &options->connection);
  sub->callback([options, action] { *action = [options] { return RunScore(*options); }; });
}

}  // namespace hgrn2::client
