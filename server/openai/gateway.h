// The OpenAI-compatible API over a Frontend: routes and the handlers behind them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "engine/frontend/worker_pool.h"
#include "server/http/http_router.h"
#include "server/openai/generation_call.h"
#include "server/openai/json_input.h"
#include "server/openai/response_store.h"
#include "server/openai/responses_body.h"

namespace hgrn2 {

// Pointers outlive the gateway.
struct GatewayOptions {
  GenerationContext generation;
  const ChatTemplates* chat = nullptr;  // null: this checkpoint's template cannot be used
  std::string chat_error;               // then: why
  int32_t chat_max_tokens = 1024;       // of answers whose request sets no limit
  int32_t max_prompt_tokens = 1 << 20;
  int64_t response_store_bytes = 64 << 20;  // 0: responses are not kept
  int64_t started = 0;                      // seconds since 1970, the model's "created"
};

// Thread-safe. Outlives the HTTP server whose router it was added to.
class Gateway {
 public:
  explicit Gateway(GatewayOptions options);

  // Also /openapi.json, which describes what `router` has by then: to be called last.
  void AddRoutes(HttpRouter* router);

 private:
  using Responder = std::shared_ptr<HttpResponder>;
  // Handlers of requests with a JSON body; an error becomes the answer.
  using JsonHandler = absl::Status (Gateway::*)(const Json& body, const HttpRequest& request,
                                                const Responder& responder);

  void AddPost(HttpRouter* router, const char* path, JsonHandler handler, const char* prompt_field);
  void Run(JsonHandler handler, const char* prompt_field, const HttpRequest& request,
           const Responder& responder);

  absl::Status Completions(const Json& json, const HttpRequest& request,
                           const Responder& responder);
  absl::Status Chat(const Json& json, const HttpRequest& request, const Responder& responder);
  absl::Status Responses(const Json& json, const HttpRequest& request, const Responder& responder);
  absl::Status Tokenize(const Json& json, const HttpRequest& request, const Responder& responder);
  absl::Status Detokenize(const Json& json, const HttpRequest& request, const Responder& responder);
  HttpResponse Models() const;
  HttpResponse Model(const HttpRequest& request) const;
  HttpResponse StoredResponse(const HttpRequest& request);
  HttpResponse DeleteResponse(const HttpRequest& request);

  // FAILED_PRECONDITION if the checkpoint's chat template cannot be used.
  absl::Status CheckChat() const;
  std::string ModelJson() const;
  // The conversation that a response goes on from: what is stored, then the input.
  absl::StatusOr<Json> FullConversation(const ResponsesBody& body);

  // What every generating request takes from its headers and gets by default.
  absl::Status Prepare(const HttpRequest& request, GenerationBody* body) const;
  // Token ids of the prompts, where the answer shows or counts them as it goes.
  absl::Status FillPromptIds(const CompletionRequest& request, AnswerInfo* info) const;
  void Start(const char* route, const char* prompt_field, GenerationBody body, AnswerInfo info,
             std::unique_ptr<AnswerFormat> format, const Responder& responder);

  const GatewayOptions options_;
  ResponseStore responses_;
  WorkerPool workers_;  // for bodies that would hold up an I/O thread
};

}  // namespace hgrn2
