// hgrn2-client tokenize, detokenize, info and health: one unary call each.
#include <fmt/format.h>
#include <grpc/health/v1/health.grpc.pb.h>
#include <hgrn2/v1/inference.grpc.pb.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/commands.h"
#include "client/connection.h"
#include "client/json_output.h"
#include "client/rpc_error.h"
#include "client/text_io.h"

namespace hgrn2::client {
namespace {

using Json = nlohmann::ordered_json;

struct SimpleOptions {
  ConnectionOptions connection;
  std::string command;
  std::string model;
  std::string text;
  std::string file;
  std::vector<std::string> tokens;
  std::string service;
  bool json = false;
  std::optional<bool> special_tokens;
};

int Fail(const SimpleOptions& options, const absl::Status& status) {
  fmt::print(stderr, "hgrn2-client: {}: {}\n", options.command, std::string(status.message()));
  return kUsageError;
}

void PrintJson(const Json& json) { std::fputs(DumpLine(json).c_str(), stdout); }

int RunTokenize(const SimpleOptions& options, const std::shared_ptr<grpc::Channel>& channel,
                grpc::ClientContext* context) {
  v1::TokenizeRequest request;
  request.set_model(options.model);
  request.set_text(options.text);
  if (options.special_tokens) request.set_add_special_tokens(*options.special_tokens);
  if (!options.file.empty() || options.text.empty()) {
    absl::StatusOr<std::string> text = ReadFile(options.file.empty() ? "-" : options.file);
    if (!text.ok()) return Fail(options, text.status());
    request.set_text(*std::move(text));
  }
  v1::TokenizeResponse response;
  const grpc::Status status =
      v1::Inference::NewStub(channel)->Tokenize(context, request, &response);
  if (!status.ok()) return ReportStatus(status, options.command);
  if (options.json) {
    Json tokens = Json::array();
    for (const std::string& token : response.tokens()) tokens.push_back(token);
    Json json;
    json["token_ids"] = response.token_ids();
    json["tokens"] = std::move(tokens);
    PrintJson(json);
    return 0;
  }
  fmt::print("{}\n", fmt::join(response.token_ids(), ","));
  return 0;
}

int RunDetokenize(const SimpleOptions& options, const std::shared_ptr<grpc::Channel>& channel,
                  grpc::ClientContext* context) {
  v1::DetokenizeRequest request;
  request.set_model(options.model);
  if (options.special_tokens) request.set_skip_special_tokens(!*options.special_tokens);
  std::string joined = fmt::format("{}", fmt::join(options.tokens, ","));
  if (options.tokens.empty()) {
    absl::StatusOr<std::string> text = ReadFile("-");
    if (!text.ok()) return Fail(options, text.status());
    joined = *std::move(text);
  }
  absl::StatusOr<std::vector<int32_t>> ids = ParseTokenIds(joined);
  if (!ids.ok()) return Fail(options, ids.status());
  request.mutable_token_ids()->Assign(ids->begin(), ids->end());
  v1::DetokenizeResponse response;
  const grpc::Status status =
      v1::Inference::NewStub(channel)->Detokenize(context, request, &response);
  if (!status.ok()) return ReportStatus(status, options.command);
  if (options.json) {
    PrintJson({{"text", response.text()}});
  } else {
    PrintGenerated(response.text() + "\n");
  }
  return 0;
}

int RunInfo(const SimpleOptions& options, const std::shared_ptr<grpc::Channel>& channel,
            grpc::ClientContext* context) {
  v1::GetModelRequest request;
  request.set_model(options.model);
  v1::GetModelResponse response;
  const grpc::Status status =
      v1::Inference::NewStub(channel)->GetModel(context, request, &response);
  if (!status.ok()) return ReportStatus(status, options.command);
  const Json json = ToJson(response);
  if (options.json) {
    PrintJson(json);
    return 0;
  }
  for (const auto& [key, value] : json.items()) {
    fmt::print("{:<26}{}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return 0;
}

int RunHealth(const SimpleOptions& options, const std::shared_ptr<grpc::Channel>& channel,
              grpc::ClientContext* context) {
  namespace health = grpc::health::v1;
  health::HealthCheckRequest request;
  request.set_service(options.service);
  health::HealthCheckResponse response;
  const grpc::Status status = health::Health::NewStub(channel)->Check(context, request, &response);
  if (!status.ok()) return ReportStatus(status, options.command);
  fmt::print("{}\n", health::HealthCheckResponse::ServingStatus_Name(response.status()));
  return response.status() == health::HealthCheckResponse::SERVING ? 0 : 1;
}

using RunFunction = int (*)(const SimpleOptions&, const std::shared_ptr<grpc::Channel>&,
                            grpc::ClientContext*);

CLI::App* AddSimple(CLI::App* app, Action* action, const std::string& name, const std::string& help,
                    const std::shared_ptr<SimpleOptions>& options, RunFunction run) {
  CLI::App* sub = app->add_subcommand(name, help);
  options->command = name;
  AddConnectionOptions(sub, &options->connection);
  sub->callback([options, action, run] {
    *action = [options, run] {
      auto channel = MakeChannel(options->connection, options->connection.target());
      if (!channel.ok()) return Fail(*options, channel.status());
      grpc::ClientContext context;
      PrepareContext(options->connection, &context);
      return run(*options, *channel, &context);
    };
  });
  return sub;
}

}  // namespace

void AddTokenizeCommand(CLI::App* app, Action* action) {
  auto options = std::make_shared<SimpleOptions>();
  CLI::App* sub = AddSimple(app, action, "tokenize", "Text to token ids", options, RunTokenize);
  sub->add_option("text", options->text, "Text; none: standard input");
  sub->add_option("--file", options->file, "File holding the text");
  sub->add_option("--model", options->model, "Served model name");
  sub->add_flag("--json", options->json, "Ids and tokens as one JSON line");
  sub->add_flag(
      "--add-special-tokens,--add_special_tokens,!--no-add-special-tokens",
      [options](int64_t n) { options->special_tokens = n > 0; },
      "Apply the tokenizer's template, such as BOS (default on)");
}

void AddDetokenizeCommand(CLI::App* app, Action* action) {
  auto options = std::make_shared<SimpleOptions>();
  CLI::App* sub = AddSimple(app, action, "detokenize", "Token ids to text", options, RunDetokenize);
  sub->add_option("tokens", options->tokens, "Ids '1,2,3' or 1 2 3; none: standard input");
  sub->add_option("--model", options->model, "Served model name");
  sub->add_flag("--json", options->json, "The text as one JSON line");
  sub->add_flag(
      "--skip-special-tokens,--skip_special_tokens",
      [options](int64_t) { options->special_tokens = false; },
      "Leave special tokens out of the text");
}

void AddInfoCommand(CLI::App* app, Action* action) {
  auto options = std::make_shared<SimpleOptions>();
  CLI::App* sub = AddSimple(app, action, "info", "Describe the served model", options, RunInfo);
  sub->add_option("--model", options->model, "Served model name");
  sub->add_flag("--json", options->json, "As one JSON line");
}

void AddHealthCommand(CLI::App* app, Action* action) {
  auto options = std::make_shared<SimpleOptions>();
  options->connection.timeout_s = 5;
  CLI::App* sub =
      AddSimple(app, action, "health", "grpc.health.v1 check: exit code 0 if SERVING, else 1",
                options, RunHealth);
  sub->add_option("--service", options->service, "Service name; none: the whole server");
}

}  // namespace hgrn2::client
