#include "server/openai/openapi.h"

#include "server/openai/completion_body.h"
#include "server/openai/json_input.h"
#include "server/openai/responses_body.h"
#include "server/openai/tokenize_body.h"
#include "server/version.h"

namespace hgrn2 {
namespace {

template <typename Table>
void AddProperties(const Table& table, Json* schema) {
  for (const auto& field : table) {
    Json property = Json::parse(field.schema);
    property["description"] = field.description;
    if (field.example != nullptr) property["examples"] = {Json::parse(field.example)};
    (*schema)["properties"][field.name] = std::move(property);
    if (field.required) (*schema)["required"].push_back(field.name);
  }
}

template <typename... Tables>
Json BodySchema(const Tables&... tables) {
  Json schema = {{"type", "object"}, {"properties", Json::object()}};
  (AddProperties(tables, &schema), ...);
  schema["additionalProperties"] = false;
  return schema;
}

Json Error(const char* description) {
  return {
      {"description", description},
      {"content", {{"application/json", {{"schema", {{"$ref", "#/components/schemas/Error"}}}}}}}};
}

Json Answers(const char* description, const char* type) {
  return {{"200", {{"description", description}, {"content", {{type, Json::object()}}}}}};
}

void AddErrors(bool with_body, Json* responses) {
  Json& out = *responses;
  out["401"] = Error("No valid API key.");
  if (!with_body) return;
  out["400"] = Error("A field is wrong: param names it.");
  out["404"] = Error("No such model.");
  out["408"] = Error("The request did not arrive in time.");
  out["413"] = Error("The body is too large.");
  out["415"] = Error("The body is not application/json.");
  out["429"] = Error("The queue is full: see Retry-After.");
  out["500"] = Error("A fault of the server's.");
  out["503"] = Error("Shutting down: see Retry-After.");
  out["504"] = Error("The request's own time-out has passed.");
}

Json Guarded(const char* summary) {
  Json operation = {{"summary", summary}};
  operation["security"] = Json::array({{{"bearer", Json::array()}}, Json::object()});
  return operation;
}

Json Post(const char* summary, Json schema, bool streams) {
  Json operation = Guarded(summary);
  operation["requestBody"] = {{"required", true},
                              {"content", {{"application/json", {{"schema", std::move(schema)}}}}}};
  operation["responses"] = Answers("The answer.", "application/json");
  if (streams) operation["responses"]["200"]["content"]["text/event-stream"] = Json::object();
  AddErrors(true, &operation["responses"]);
  return operation;
}

Json Get(const char* summary, const char* type = "application/json") {
  return {{"summary", summary}, {"responses", Answers("The answer.", type)}};
}

Json WithParameter(Json operation, const char* name) {
  operation["parameters"] = Json::array(
      {{{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
  operation["responses"]["404"] = Error("There is none of that name.");
  return operation;
}

Json GuardedGet(const char* summary) {
  Json operation = Guarded(summary);
  operation["responses"] = Answers("The answer.", "application/json");
  AddErrors(false, &operation["responses"]);
  return operation;
}

Json Paths() {
  Json paths;
  paths["/v1/completions"]["post"] = Post(
      "Complete texts.", BodySchema(CompletionFields(), SamplingFields(), ServingFields()), true);
  paths["/v1/chat/completions"]["post"] =
      Post("Answer in a conversation.", BodySchema(ChatFields(), SamplingFields(), ServingFields()),
           true);
  paths["/v1/responses"]["post"] = Post(
      "Answer in a conversation that the server keeps.",
      BodySchema(ResponsesFields(), ResponsesSamplingFields(), ResponsesServingFields()), true);
  paths["/v1/responses/{response_id}"] = {
      {"get", WithParameter(GuardedGet("A stored response."), "response_id")},
      {"delete", WithParameter(GuardedGet("Forget a stored response."), "response_id")}};
  paths["/v1/models"]["get"] = GuardedGet("The served model, as a list.");
  paths["/v1/models/{model}"]["get"] = WithParameter(GuardedGet("The served model."), "model");
  paths["/tokenize"]["post"] =
      Post("Text or a conversation to token ids.", BodySchema(TokenizeFields()), false);
  paths["/detokenize"]["post"] = Post("Token ids to text.", BodySchema(DetokenizeFields()), false);
  paths["/health"]["get"] = Get("Liveness: 503 when the engine's loop has stopped.");
  paths["/ready"]["get"] = Get("Readiness: 503 from the beginning of a shutdown.");
  paths["/version"]["get"] = Get("The server's version.");
  paths["/metrics"]["get"] = Get("Prometheus metrics.", "text/plain");
  paths["/openapi.json"]["get"] = Get("This document.");
  return paths;
}

Json ErrorSchema() {
  const Json text_or_null = {{"type", Json::array({"string", "null"})}};
  return {{"type", "object"},
          {"required", {"error"}},
          {"properties",
           {{"error",
             {{"type", "object"},
              {"required", {"message", "type", "param", "code"}},
              {"properties",
               {{"message", {{"type", "string"}}},
                {"type", {{"type", "string"}}},
                {"param", text_or_null},
                {"code", text_or_null}}}}}}}};
}

}  // namespace

std::string OpenApiDocument() {
  Json document = {{"openapi", "3.1.0"},
                   {"info",
                    {{"title", "hgrn2-server"},
                     {"version", ServerVersion()},
                     {"description",
                      "OpenAI's API with vLLM's additions. Every answer carries x-request-id; a "
                      "request may, too."}}}};
  document["paths"] = Paths();
  document["components"]["schemas"]["Error"] = ErrorSchema();
  document["components"]["securitySchemes"]["bearer"] = {{"type", "http"}, {"scheme", "bearer"}};
  return document.dump() + "\n";
}

}  // namespace hgrn2
