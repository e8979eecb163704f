#include "server/openai/gateway.h"

#include <atomic>
#include <charconv>
#include <ctime>

#include "base/status.h"
#include "server/openai/api_error.h"
#include "server/openai/completion_body.h"
#include "server/openai/completion_format.h"

namespace hgrn2 {
namespace {

// Bodies above this size are parsed and tokenized on a worker: smaller ones take less time than the
// way there.
constexpr size_t kLargeBodyBytes = 64 << 10;
constexpr int32_t kNumWorkers = 2;

int64_t Now() { return static_cast<int64_t>(std::time(nullptr)); }

HttpResponse CheckContentType(const HttpRequest& request) {
  const std::string_view encoding = request.Header("content-encoding");
  if (!encoding.empty() && encoding != "identity") {
    return ErrorResponse(415, "Content-Encoding: only identity is understood");
  }
  std::string_view type = request.Header("content-type");
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  if (type.empty() || type == "application/json" || type == "text/json") return {};
  return ErrorResponse(415, "Content-Type must be application/json");
}

// Seconds, as a decimal number.
absl::StatusOr<double> ReadSeconds(const char* header, std::string_view text, double unit) {
  double value = 0;
  const char* const end = text.data() + text.size();
  if (std::from_chars(text.data(), end, value).ptr != end ||
      !(value > 0 && value * unit <= 86400)) {
    return InvalidArgument(header, "must be a time of more than 0 and at most 86400 seconds");
  }
  return value * unit;
}

}  // namespace

Gateway::Gateway(GatewayOptions options) : options_(std::move(options)), workers_(kNumWorkers) {}

void Gateway::AddRoutes(HttpRouter* router) {
  AddPost(router, "/v1/completions", &Gateway::Completions, "prompt");
}

void Gateway::AddPost(HttpRouter* router, const char* path, JsonHandler handler,
                      const char* prompt_field) {
  router->Add(
      "POST", path,
      [this, handler, prompt_field](HttpRequest request, Responder responder) {
        if (request.body.size() <= kLargeBodyBytes) {
          return Run(handler, prompt_field, request, responder);
        }
        static std::atomic<size_t> shard{0};
        workers_.Post(
            shard.fetch_add(1),
            [this, handler, prompt_field, request = std::move(request),
             responder = std::move(responder)] { Run(handler, prompt_field, request, responder); });
      },
      HttpRouter::Access::kGuarded);
}

void Gateway::Run(JsonHandler handler, const char* prompt_field, const HttpRequest& request,
                  const Responder& responder) {
  if (HttpResponse refusal = CheckContentType(request); refusal.status != 200) {
    return responder->Send(std::move(refusal));
  }
  const auto body = ParseRequestBody(request.body);
  absl::Status status = body.status();
  if (status.ok()) status = (this->*handler)(*body, request, responder);
  if (!status.ok()) responder->Send(ToHttpError(status, prompt_field));
}

absl::Status Gateway::Prepare(const HttpRequest& request, GenerationBody* body) const {
  CompletionRequest& out = body->request;
  if (out.request_id.empty()) out.request_id = request.id;
  double seconds = body->timeout;
  if (const auto text = request.Header("x-request-timeout"); seconds == 0 && !text.empty()) {
    ASSIGN_OR_RETURN(seconds, ReadSeconds("x-request-timeout", text, 1));
  }
  constexpr const char kEnvoys[] = "x-envoy-expected-rq-timeout-ms";
  if (const auto text = request.Header(kEnvoys); seconds == 0 && !text.empty()) {
    ASSIGN_OR_RETURN(seconds, ReadSeconds(kEnvoys, text, 1e-3));
  }
  if (seconds > 0) {
    out.deadline = options_.generation.clock->Now() +
                   std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  }
  return absl::OkStatus();
}

absl::Status Gateway::FillPromptIds(const CompletionRequest& request, AnswerInfo* info) const {
  if (!info->return_token_ids && !info->continuous_usage) return absl::OkStatus();
  for (const PromptInput& prompt : request.prompts) {
    if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) {
      info->prompt_ids.push_back(*ids);
      continue;
    }
    ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                     options_.generation.frontend->Tokenize(
                         request.model, std::get<std::string>(prompt), request.add_special_tokens));
    info->prompt_ids.push_back(std::move(ids));
  }
  return absl::OkStatus();
}

void Gateway::Start(const char* route, const char* prompt_field, GenerationBody body,
                    AnswerInfo info, std::unique_ptr<AnswerFormat> format,
                    const Responder& responder) {
  GenerationTask task;
  task.route = route;
  task.prompt_field = prompt_field;
  task.stream = body.stream;
  task.echo = info.echo;
  task.prompt_only = info.prompt_only;
  for (const auto& ids : info.prompt_ids) {
    task.prompt_tokens.push_back(static_cast<int32_t>(ids.size()));
  }
  task.format = std::move(format);
  StartGeneration(options_.generation, std::move(body.request), std::move(task), responder);
}

absl::Status Gateway::Completions(const Json& json, const HttpRequest& request,
                                  const Responder& responder) {
  ASSIGN_OR_RETURN(CompletionBody body, ParseCompletionBody(json));
  RETURN_IF_ERROR(Prepare(request, &body));
  AnswerInfo info =
      MakeAnswerInfo(body, "cmpl-" + body.request.request_id, *options_.generation.frontend, Now());
  info.num_shown = body.num_shown;
  info.prompt_only = body.prompt_only;
  if (info.num_shown < info.num_choices) {  // best_of ranks by log-probability
    body.request.sampling.logprobs = std::max(body.request.sampling.logprobs, 0);
  }
  RETURN_IF_ERROR(FillPromptIds(body.request, &info));
  auto format = std::make_unique<CompletionFormat>(info);
  Start("/v1/completions", "prompt", std::move(body), std::move(info), std::move(format),
        responder);
  return absl::OkStatus();
}

}  // namespace hgrn2
