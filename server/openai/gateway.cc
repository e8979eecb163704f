#include "server/openai/gateway.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <ctime>
#include <functional>

#include "base/status.h"
#include "server/openai/api_error.h"
#include "server/openai/chat_body.h"
#include "server/openai/chat_format.h"
#include "server/openai/completion_body.h"
#include "server/openai/completion_format.h"
#include "server/openai/json_output.h"
#include "server/openai/openapi.h"
#include "server/openai/responses_format.h"
#include "server/openai/tokenize_body.h"
#include "server/request_id.h"

namespace hgrn2 {
namespace {

// Bodies above this size are parsed and tokenized on a worker: smaller ones take less time than the
// way there.
constexpr size_t kLargeBodyBytes = 64 << 10;
constexpr int32_t kNumWorkers = 2;

constexpr char kModelPath[] = "/v1/models/{model}";
constexpr char kResponsePath[] = "/v1/responses/{response_id}";

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

Gateway::Gateway(GatewayOptions options)
    : options_(std::move(options)),
      responses_(options_.response_store_bytes),
      workers_(PlainWorkerLoops(kNumWorkers)) {}

void Gateway::AddRoutes(HttpRouter* router) {
  const auto add = [&](const char* method, const char* path,
                       std::function<HttpResponse(const HttpRequest&)> answer) {
    router->Add(method, path, Immediately(std::move(answer)), HttpRouter::Access::kGuarded);
  };
  AddPost(router, "/v1/completions", &Gateway::Completions, "prompt");
  AddPost(router, "/v1/chat/completions", &Gateway::Chat, "messages");
  AddPost(router, "/v1/responses", &Gateway::Responses, "input");
  AddPost(router, "/tokenize", &Gateway::Tokenize, "prompt");
  AddPost(router, "/detokenize", &Gateway::Detokenize, "tokens");
  add("GET", "/v1/models", [this](const HttpRequest&) { return Models(); });
  add("GET", kModelPath, [this](const HttpRequest& request) { return Model(request); });
  add("GET", kResponsePath, [this](const HttpRequest& request) { return StoredResponse(request); });
  add("DELETE", kResponsePath,
      [this](const HttpRequest& request) { return DeleteResponse(request); });
  HttpResponse description;
  description.body = OpenApiDocument();
  router->Add("GET", "/openapi.json",
              Immediately([description](const HttpRequest&) { return description; }));
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
  const absl::StatusOr<Json> body = ParseRequestBody(request.body);
  absl::Status status = body.status();
  if (status.ok()) status = (this->*handler)(*body, request, responder);
  if (!status.ok()) responder->Send(ToHttpError(status, prompt_field));
}

absl::Status Gateway::Prepare(const HttpRequest& request, GenerationBody* body) const {
  CompletionRequest& out = body->request;
  if (out.request_id.empty()) out.request_id = request.id;
  if (auto trace = ParseTraceparent(request.Header("traceparent"))) body->trace = *std::move(trace);
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
  task.trace = std::move(body.trace);
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

absl::Status Gateway::CheckChat() const {
  if (options_.chat != nullptr) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kFailedPrecondition,
                    "this model's chat template cannot be used: {}", options_.chat_error);
}

absl::Status Gateway::Chat(const Json& json, const HttpRequest& request,
                           const Responder& responder) {
  RETURN_IF_ERROR(CheckChat());
  ASSIGN_OR_RETURN(ChatBody body, ParseChatBody(json, *options_.chat));
  RETURN_IF_ERROR(Prepare(request, &body));
  RETURN_IF_ERROR(RenderPrompt(*options_.chat, body.conversation, &body));
  SamplingRequest& sampling = body.request.sampling;
  if (!sampling.max_tokens.has_value()) sampling.max_tokens = options_.chat_max_tokens;
  AnswerInfo info = MakeAnswerInfo(body, "chatcmpl-" + body.request.request_id,
                                   *options_.generation.frontend, Now());
  RETURN_IF_ERROR(FillPromptIds(body.request, &info));
  auto format = std::make_unique<ChatFormat>(info);
  Start("/v1/chat/completions", "messages", std::move(body), std::move(info), std::move(format),
        responder);
  return absl::OkStatus();
}

absl::StatusOr<Json> Gateway::FullConversation(const ResponsesBody& body) {
  if (body.previous_response_id.empty()) return body.input;
  constexpr const char kField[] = "previous_response_id";
  if (!responses_.enabled()) {
    return InvalidArgument(kField, "this server keeps no responses (response-store-bytes is 0)");
  }
  const auto previous = responses_.Get(body.previous_response_id);
  if (previous == nullptr) {
    return InvalidArgument(kField,
                           "there is no such response here: it was not stored, or had to "
                           "make room, or is another replica's");
  }
  Json messages = previous->messages;
  for (const Json& message : body.input) messages.push_back(message);
  return messages;
}

absl::Status Gateway::Responses(const Json& json, const HttpRequest& request,
                                const Responder& responder) {
  RETURN_IF_ERROR(CheckChat());
  ASSIGN_OR_RETURN(ResponsesBody body, ParseResponsesBody(json));
  RETURN_IF_ERROR(Prepare(request, &body));
  ASSIGN_OR_RETURN(Json messages, FullConversation(body));
  Conversation conversation;
  if (!body.instructions.empty()) {
    conversation.messages.push_back({{"role", "system"}, {"content", body.instructions}});
  }
  for (const Json& message : messages) conversation.messages.push_back(message);
  if (!json.contains("add_special_tokens")) {
    body.request.add_special_tokens = options_.chat->add_special_tokens();
  }
  RETURN_IF_ERROR(RenderPrompt(*options_.chat, conversation, &body));
  // An id of our own: a client that sends its request id again must not overwrite what is stored.
  AnswerInfo info =
      MakeAnswerInfo(body, "resp_" + MakeRequestId(), *options_.generation.frontend, Now());
  const bool store = body.store && responses_.enabled();
  auto format = std::make_unique<ResponsesFormat>(
      info, body,
      [this, store, id = info.id, messages = std::move(messages)](
          const std::string& text, const std::string& response) mutable {
        if (!store) return;
        messages.push_back({{"role", "assistant"}, {"content", text}});
        responses_.Put(id, {std::move(messages), response + "\n"});
      });
  SamplingRequest& sampling = body.request.sampling;
  if (!sampling.max_tokens.has_value()) sampling.max_tokens = options_.chat_max_tokens;
  Start("/v1/responses", "input", std::move(body), std::move(info), std::move(format), responder);
  return absl::OkStatus();
}

HttpResponse Gateway::StoredResponse(const HttpRequest& request) {
  const auto found = responses_.Get(PathTail(kResponsePath, request.path));
  if (found == nullptr) return ErrorResponse(404, "there is no such response", "response_id");
  HttpResponse response;
  response.body = found->body;
  return response;
}

HttpResponse Gateway::DeleteResponse(const HttpRequest& request) {
  const std::string id = PathTail(kResponsePath, request.path);
  if (!responses_.Delete(id)) return ErrorResponse(404, "there is no such response", "response_id");
  HttpResponse response;
  response.body = "{\"id\":";
  AppendJsonString(id, &response.body);
  response.body += ",\"object\":\"response\",\"deleted\":true}\n";
  return response;
}

std::string Gateway::ModelJson() const {
  std::string out = "{\"id\":";
  const std::string& name = options_.generation.frontend->served_model_name();
  AppendJsonString(name, &out);
  out += ",\"object\":\"model\",\"created\":";
  AppendJsonInt(options_.started, &out);
  out += ",\"owned_by\":\"hgrn2-server\",\"root\":";
  AppendJsonString(name, &out);
  out += ",\"parent\":null,\"max_model_len\":";
  AppendJsonInt(options_.max_prompt_tokens, &out);
  return out + "}";
}

HttpResponse Gateway::Models() const {
  HttpResponse response;
  response.body = "{\"object\":\"list\",\"data\":[" + ModelJson() + "]}\n";
  return response;
}

HttpResponse Gateway::Model(const HttpRequest& request) const {
  const absl::Status known =
      options_.generation.frontend->CheckModel(PathTail(kModelPath, request.path));
  if (!known.ok()) return ToHttpError(known);
  HttpResponse response;
  response.body = ModelJson() + "\n";
  return response;
}

absl::Status Gateway::Tokenize(const Json& json, const HttpRequest&, const Responder& responder) {
  ASSIGN_OR_RETURN(TokenizeBody body, ParseTokenizeBody(json));
  bool special = body.add_special_tokens.value_or(true);
  if (!body.prompt.has_value()) {
    RETURN_IF_ERROR(CheckChat());
    GenerationBody rendered;
    RETURN_IF_ERROR(RenderPrompt(*options_.chat, body.conversation, &rendered));
    body.prompt = std::get<std::string>(std::move(rendered.request.prompts[0]));
    special = body.add_special_tokens.value_or(options_.chat->add_special_tokens());
  }
  Frontend& frontend = *options_.generation.frontend;
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                   frontend.Tokenize(body.model, *body.prompt, special));
  HttpResponse response;
  std::string& out = response.body;
  out = "{\"count\":";
  AppendJsonInt(std::ssize(ids), &out);
  out += ",\"max_model_len\":";
  AppendJsonInt(options_.max_prompt_tokens, &out);
  out += ",\"tokens\":";
  AppendTokenIds(ids, &out);
  out += ",\"token_strs\":";
  if (body.return_token_strs) {
    for (size_t i = 0; i < ids.size(); ++i) {
      out += i == 0 ? '[' : ',';
      AppendJsonString(frontend.tokenizer()->TokenBytes(ids[i]), &out);
    }
    out += ids.empty() ? "[]" : "]";
  } else {
    out += "null";
  }
  out += "}\n";
  responder->Send(std::move(response));
  return absl::OkStatus();
}

absl::Status Gateway::Detokenize(const Json& json, const HttpRequest&, const Responder& responder) {
  ASSIGN_OR_RETURN(const DetokenizeBody body, ParseDetokenizeBody(json));
  ASSIGN_OR_RETURN(const std::string text, options_.generation.frontend->Detokenize(
                                               body.model, body.tokens, body.skip_special_tokens));
  HttpResponse response;
  response.body = "{\"prompt\":";
  AppendJsonString(text, &response.body);
  response.body += "}\n";
  responder->Send(std::move(response));
  return absl::OkStatus();
}

}  // namespace hgrn2
