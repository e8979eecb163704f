// hgrn2-client complete: prompts to streamed text.
#include <fmt/format.h>
#include <hgrn2/v1/inference.grpc.pb.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "client/commands.h"
#include "client/connection.h"
#include "client/interrupt.h"
#include "client/json_output.h"
#include "client/rpc_error.h"
#include "client/sampling_flags.h"
#include "client/text_io.h"

namespace hgrn2::client {
namespace {

using Json = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

struct CompleteOptions {
  ConnectionOptions connection;
  v1::GenerateRequest request;
  std::vector<std::string> prompts;
  std::vector<std::string> files;
  std::vector<std::string> token_prompts;
  bool json = false;
  bool stream = true;
  bool stats = false;
};

absl::Status AddPrompts(CompleteOptions* options) {
  auto add_text = [&](std::string text) {
    options->request.add_prompts()->set_text(std::move(text));
  };
  for (const std::string& ids : options->token_prompts) {
    absl::StatusOr<std::vector<int32_t>> parsed = ParseTokenIds(ids);
    if (!parsed.ok()) return parsed.status();
    auto* tokens = options->request.add_prompts()->mutable_tokens();
    tokens->mutable_ids()->Assign(parsed->begin(), parsed->end());
  }
  for (const std::string& prompt : options->prompts) {
    if (prompt != "-")
      add_text(prompt);
    else
      options->files.push_back("-");
  }
  if (options->request.prompts_size() == 0 && options->files.empty()) {
    if (isatty(STDIN_FILENO)) fmt::print(stderr, "Prompt (end with Ctrl-D):\n");
    options->files.push_back("-");
  }
  for (const std::string& file : options->files) {
    absl::StatusOr<std::string> text = ReadFile(file);
    if (!text.ok()) return text.status();
    add_text(*std::move(text));
  }
  return absl::OkStatus();
}

// Prints deltas as they come: JSON lines; or the text itself if there is one choice; or, since
// several choices interleave, each choice under a heading when the stream ends.
class Printer {
 public:
  Printer(bool json, int num_choices) : json_(json), texts_(num_choices) {}

  void Add(const v1::ChoiceDelta& delta) {
    if (delta.token_ids_size() > 0 && first_ == SteadyClock::time_point())
      first_ = SteadyClock::now();
    if (json_) {
      const std::string line = DumpLine(ToJson(delta));
      std::fwrite(line.data(), 1, line.size(), stdout);
      std::fflush(stdout);
      return;
    }
    if (texts_.size() == 1) {
      PrintGenerated(delta.text());
      ended_with_newline_ =
          delta.text().empty() ? ended_with_newline_ : delta.text().back() == '\n';
      PrintLogprobs(delta);
      return;
    }
    if (delta.index() >= 0 && static_cast<size_t>(delta.index()) < texts_.size()) {
      texts_[delta.index()] += delta.text();
    }
  }

  void Finish() {
    if (json_) return;
    if (texts_.size() == 1) {
      if (!ended_with_newline_) std::fputs("\n", stdout);
    } else {
      for (size_t i = 0; i < texts_.size(); ++i) {
        PrintGenerated(fmt::format("--- choice {}\n{}\n", i, texts_[i]));
      }
    }
    for (const std::string& line : logprob_lines_) PrintGenerated(line);
    std::fflush(stdout);
  }

  SteadyClock::time_point first() const { return first_; }

 private:
  void PrintLogprobs(const v1::ChoiceDelta& delta) {
    auto add = [&](const v1::TokenLogprob& t, const char* kind) {
      std::string line =
          fmt::format("{} {:>6} {:>10} rank {:<5} {}", kind, t.token_id(),
                      t.has_logprob() ? fmt::format("{:.4f}", t.logprob()) : "-", t.rank(),
                      Json(t.token()).dump(-1, ' ', false, Json::error_handler_t::replace));
      for (const auto& top : t.top()) {
        line += fmt::format("  {}:{:.4f}", top.token_id(), top.logprob());
      }
      logprob_lines_.push_back(line + "\n");
    };
    for (const auto& t : delta.prompt_logprobs()) add(t, "prompt");
    for (const auto& t : delta.logprobs()) add(t, "output");
  }

  const bool json_;
  std::vector<std::string> texts_;
  std::vector<std::string> logprob_lines_;
  bool ended_with_newline_ = false;
  SteadyClock::time_point first_;
};

void PrintStats(const v1::Usage& usage, const v1::Timing& timing, SteadyClock::time_point start,
                SteadyClock::time_point first) {
  const std::chrono::duration<double> total = SteadyClock::now() - start;
  fmt::print(stderr, "{} prompt tokens ({} cached), {} completion tokens in {:.3f} s",
             usage.prompt_tokens(), usage.cached_tokens(), usage.completion_tokens(),
             total.count());
  if (first != SteadyClock::time_point()) {
    const std::chrono::duration<double> ttft = first - start;
    fmt::print(stderr, "; first token after {:.1f} ms", ttft.count() * 1e3);
  }
  if (timing.decode() > 0) {
    fmt::print(stderr, "; {:.1f} tokens/s in decode", usage.completion_tokens() / timing.decode());
  }
  fmt::print(stderr, "\nserver: queue {:.1f} ms, prefill {:.1f} ms, decode {:.1f} ms\n",
             timing.queue() * 1e3, timing.prefill() * 1e3, timing.decode() * 1e3);
}

Json UsageLine(const v1::Usage& usage, const v1::Timing& timing) {
  return {{"usage", ToJson(usage)}, {"timing", ToJson(timing)}};
}

grpc::Status Stream(const CompleteOptions& options, v1::Inference::Stub* stub,
                    grpc::ClientContext* context) {
  const int num_choices = options.request.prompts_size() *
                          (options.request.sampling().has_n() ? options.request.sampling().n() : 1);
  Printer printer(options.json, std::max(1, num_choices));
  const auto start = SteadyClock::now();
  auto reader = stub->Generate(context, options.request);
  v1::GenerateResponse response;
  v1::Usage usage;
  v1::Timing timing;
  while (reader->Read(&response)) {
    for (const auto& delta : response.choices()) printer.Add(delta);
    if (response.has_usage()) usage = response.usage();
    if (response.has_timing()) timing = response.timing();
  }
  const grpc::Status status = reader->Finish();
  printer.Finish();
  if (status.ok() && options.json) {
    std::fputs(DumpLine(UsageLine(usage, timing)).c_str(), stdout);
  }
  if (options.stats) PrintStats(usage, timing, start, printer.first());
  return status;
}

grpc::Status Whole(const CompleteOptions& options, v1::Inference::Stub* stub,
                   grpc::ClientContext* context) {
  const auto start = SteadyClock::now();
  v1::CompleteResponse response;
  const grpc::Status status = stub->Complete(context, options.request, &response);
  if (!status.ok()) return status;
  if (options.json) {
    Json json{{"request_id", response.request_id()}, {"model", response.model()}};
    json["choices"] = Json::array();
    for (const auto& choice : response.choices()) json["choices"].push_back(ToJson(choice));
    json.update(UsageLine(response.usage(), response.timing()));
    std::fputs(DumpLine(json).c_str(), stdout);
  } else {
    Printer printer(false, std::max(1, response.choices_size()));
    for (const auto& choice : response.choices()) printer.Add(choice);
    printer.Finish();
  }
  if (options.stats) PrintStats(response.usage(), response.timing(), start, {});
  return status;
}

int RunComplete(CompleteOptions options) {
  if (absl::Status status = AddPrompts(&options); !status.ok()) {
    fmt::print(stderr, "hgrn2-client: complete: {}\n", std::string(status.message()));
    return kUsageError;
  }
  auto channel = MakeChannel(options.connection, options.connection.target());
  if (!channel.ok()) {
    fmt::print(stderr, "hgrn2-client: complete: {}\n", std::string(channel.status().message()));
    return kUsageError;
  }
  auto stub = v1::Inference::NewStub(*channel);
  grpc::ClientContext context;
  PrepareContext(options.connection, &context);
  InterruptHandler on_interrupt([&context] { context.TryCancel(); });
  const grpc::Status status =
      options.stream ? Stream(options, stub.get(), &context) : Whole(options, stub.get(), &context);
  if (Interrupted()) return kInterruptedExitCode;
  return ReportStatus(status, "complete");
}

}  // namespace

void AddCompleteCommand(CLI::App* app, Action* action) {
  auto options = std::make_shared<CompleteOptions>();
  CLI::App* sub = app->add_subcommand("complete", "Stream completions of prompts");
  v1::GenerateRequest* request = &options->request;
  sub->add_option("prompt", options->prompts, "Prompt texts; '-' or none: standard input");
  sub->add_option("--file", options->files, "File holding a prompt; repeatable")
      ->allow_extra_args(false);
  sub->add_option("--tokens", options->token_prompts, "Prompt of token ids '1,2,3'; repeatable")
      ->allow_extra_args(false);
  sub->add_flag("--json", options->json, "One JSON line per delta and one with the usage");
  sub->add_flag("!--no-stream", options->stream,
                "Call Complete: one answer (with --json: one object)");
  sub->add_flag(
      "--echo", [request](int64_t n) { request->set_echo(n > 0); },
      "Put the prompt before the completion");
  sub->add_flag("--stats", options->stats, "Print token counts and timing to stderr");
  sub->add_option_function<std::string>(
      "--model", [request](const std::string& v) { request->set_model(v); }, "Served model name");
  sub->add_option_function<std::string>(
      "--request-id,--request_id", [request](const std::string& v) { request->set_request_id(v); },
      "Id for logs");
  sub->add_option_function<int32_t>(
      "--priority", [request](const int32_t& v) { request->set_priority(v); },
      "Lower is scheduled first, [-100, 100]");
  sub->add_flag(
      "--add-special-tokens,--add_special_tokens,!--no-add-special-tokens",
      [request](int64_t n) { request->set_add_special_tokens(n > 0); },
      "Apply the tokenizer's template (such as BOS) to text prompts (default on)");
  sub->add_option_function<std::string>(
      "--user", [request](const std::string& v) { request->set_user(v); }, "End-user id");
  sub->add_option_function<std::string>(
      "--cache-salt,--cache_salt", [request](const std::string& v) { request->set_cache_salt(v); },
      "Prefix-cache partition");
  AddSamplingOptions(sub, request->mutable_sampling());
  AddConnectionOptions(sub, &options->connection);
  sub->callback([options, action] { *action = [options] { return RunComplete(*options); }; });
}

}  // namespace hgrn2::client
