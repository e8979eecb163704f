#include "server/openai/chat_body.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "engine/frontend/validate.h"

namespace hgrn2 {
namespace {

absl::Status CheckContent(const Json& content, const std::string& field) {
  if (content.is_string() || content.is_null()) return absl::OkStatus();
  if (!content.is_array()) return InvalidArgument(field, "must be text or a list of text parts");
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string name = fmt::format("{}[{}]", field, i);
    if (!part.is_object() || !part.contains("type") || !part["type"].is_string()) {
      return InvalidArgument(name, "must be an object with a type");
    }
    if (part["type"] != "text") {
      return InvalidArgument(name + ".type", "only text can be read by this model");
    }
    if (!part.contains("text") || !part["text"].is_string()) {
      return InvalidArgument(name + ".text", "must be a string");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRole(const Json& role, const std::string& field) {
  for (const char* known : {"system", "developer", "user", "assistant"}) {
    if (role == known) return absl::OkStatus();
  }
  return InvalidArgument(field, "must be system, developer, user or assistant");
}

absl::Status ReadMessage(const Json& message, const std::string& field, Json* out) {
  if (!message.is_object()) return InvalidArgument(field, "must be an object");
  Json normal = Json::object();
  for (const auto& [key, value] : message.get_ref<const Json::object_t&>()) {
    const std::string name = field + "." + key.substr(0, 64);
    if (key == "role") {
      RETURN_IF_ERROR(CheckRole(value, name));
      normal["role"] = value == "developer" ? Json("system") : value;
    } else if (key == "content") {
      RETURN_IF_ERROR(CheckContent(value, name));
      normal["content"] = value;
    } else if (key == "name") {
      std::string text;
      RETURN_IF_ERROR(ReadPrintable(value, name, &text));
      normal["name"] = std::move(text);
    } else if (!value.is_null() && !(value.is_structured() && value.empty())) {
      // Clients send back the answers they got, with members that are null or empty.
      return InvalidArgument(name, "is not supported");
    }
  }
  if (!normal.contains("role")) return InvalidArgument(field + ".role", "is required");
  const bool has_content = normal.contains("content") && !normal["content"].is_null();
  if (!has_content && normal["role"] != "assistant") {
    return InvalidArgument(field + ".content", "is required");
  }
  if (!has_content) normal["content"] = "";
  out->push_back(std::move(normal));
  return absl::OkStatus();
}

using Body = ChatBody;

template <auto Member>
absl::Status Read(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &(body->*Member));
}
template <auto Member>
absl::Status ReadOfConversation(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &(body->conversation.*Member));
}
template <absl::Status (*Reader)(const Json&, std::string_view, GenerationBody*)>
absl::Status Common(const Json& value, std::string_view field, Body* body) {
  return Reader(value, field, body);
}

absl::Status ReadMaxTokens(const Json& value, std::string_view field, Body* body) {
  std::optional<int32_t>& out = body->request.sampling.max_tokens;
  if (out.has_value()) {
    return InvalidArgument(field, "max_tokens and max_completion_tokens exclude each other");
  }
  return ReadValue(value, field, &out);
}

absl::Status Refuse(const Json&, std::string_view field, Body*) {
  return InvalidArgument(field, "is not supported");
}

absl::Status OnlyTextModality(const Json& value, std::string_view field, Body*) {
  if (value == Json::array({"text"})) return absl::OkStatus();
  return InvalidArgument(field, "only [\"text\"] is supported");
}

}  // namespace

absl::Status ReadMessages(const Json& value, std::string_view field, Json* out) {
  if (!value.is_array() || value.empty()) {
    return InvalidArgument(field, "must be a list of at least one message");
  }
  for (size_t i = 0; i < value.size(); ++i) {
    RETURN_IF_ERROR(ReadMessage(value[i], fmt::format("{}[{}]", field, i), out));
  }
  return absl::OkStatus();
}

const std::vector<Field<ChatBody>>& ChatFields() {
  static const std::vector<Field<ChatBody>> fields = {
      {"messages",
       R"({"type":"array","minItems":1,"items":{"type":"object","required":["role"],)"
       R"("properties":{"role":{"enum":["system","developer","user","assistant"]},)"
       R"("content":{"type":["string","array","null"]},"name":{"type":"string"}}}})",
       "The conversation. Contents are texts, or lists of {\"type\": \"text\", \"text\": ...}.",
       [](const Json& value, std::string_view field, ChatBody* body) {
         return ReadMessages(value, field, &body->conversation.messages);
       },
       R"([{"role":"user","content":"Hello"}])", true},
      {"max_tokens", R"({"type":"integer","minimum":1,"maximum":1048576})",
       "Most tokens to generate. Default: --chat-max-tokens.", ReadMaxTokens, "4"},
      {"max_completion_tokens", R"({"type":"integer","minimum":1,"maximum":1048576})",
       "The same as max_tokens.", ReadMaxTokens, "4"},
      {"logprobs", R"({"type":"boolean","default":false})",
       "Log-probabilities of the answer's tokens.", Read<&Body::logprobs>, "true"},
      {"top_logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
       "With logprobs: this many alternatives per token.", Read<&Body::top_logprobs>, "2"},
      {"add_generation_prompt", R"({"type":"boolean","default":true})",
       "Ask the template for the beginning of the assistant's turn.",
       ReadOfConversation<&Conversation::add_generation_prompt>, "true"},
      {"continue_final_message", R"({"type":"boolean","default":false})",
       "Go on with the last message; needs add_generation_prompt false.",
       ReadOfConversation<&Conversation::continue_final_message>, "false"},
      {"chat_template_kwargs", R"({"type":"object"})", "More variables of the template.",
       ReadOfConversation<&Conversation::template_kwargs>, R"({"enable_thinking":false})"},
      {"parallel_tool_calls", R"({"type":"boolean"})", "Accepted, without effect.",
       Common<IgnoreValue>, "false"},
      // Accepted only where they ask for nothing.
      {"response_format", R"({"type":"object","properties":{"type":{"const":"text"}}})",
       "Only text.", Common<OnlyTextFormat>, R"({"type":"text"})"},
      {"modalities", R"({"const":["text"]})", "Only text.", OnlyTextModality, R"(["text"])"},
      {"tools", R"({"type":"array","maxItems":0})", "Not supported.", Common<OnlyEmpty>, "[]"},
      {"functions", R"({"type":"array","maxItems":0})", "Not supported.", Common<OnlyEmpty>, "[]"},
      {"tool_choice", R"({"enum":["none","auto"]})", "Not supported.", Common<OnlyNeutralText>,
       R"("none")"},
      {"function_call", R"({"enum":["none","auto"]})", "Not supported.", Common<OnlyNeutralText>,
       R"("none")"},
      {"reasoning_effort", R"({"const":"none"})", "Not supported.", Common<OnlyNeutralText>,
       R"("none")"},
      {"audio", R"({"type":"null"})", "Not supported.", Refuse, "null"},
      {"prediction", R"({"type":"null"})", "Not supported.", Refuse, "null"},
      {"web_search_options", R"({"type":"null"})", "Not supported.", Refuse, "null"},
      {"chat_template", R"({"type":"null"})",
       "Not supported: templates are the server's, not the request's.", Refuse, "null"},
  };
  return fields;
}

absl::StatusOr<ChatBody> ParseChatBody(const Json& object, const ChatTemplates& chat) {
  ChatBody body;
  body.request.add_special_tokens = chat.add_special_tokens();
  RETURN_IF_ERROR(ReadFields(object, &body, ChatFields(), SamplingFields(), ServingFields()));
  SamplingRequest& sampling = body.request.sampling;
  if (body.stream && sampling.prompt_logprobs >= 0) {
    return InvalidArgument("prompt_logprobs", "is not available with stream");
  }
  if (body.top_logprobs != -1 && !body.logprobs) {
    return InvalidArgument("top_logprobs", "needs logprobs");
  }
  if (body.top_logprobs < -1 || body.top_logprobs > kMaxLogprobs) {
    return InvalidArgument("top_logprobs", "must be in [0, {}], got {}", kMaxLogprobs,
                           body.top_logprobs);
  }
  if (body.logprobs) sampling.logprobs = std::max(body.top_logprobs, 0);
  return body;
}

absl::Status RenderPrompt(const ChatTemplates& chat, const Conversation& conversation,
                          GenerationBody* body) {
  ChatRenderRequest render;
  render.messages = &conversation.messages;
  render.kwargs = &conversation.template_kwargs;
  render.add_generation_prompt = conversation.add_generation_prompt;
  render.continue_final_message = conversation.continue_final_message;
  ASSIGN_OR_RETURN(std::string text, chat.Render(render));
  body->request.prompts = {std::move(text)};
  std::vector<std::string>& stop = body->request.sampling.stop;
  for (const std::string& turn : chat.stop()) {
    if (stop.size() < kMaxStopStrings) stop.push_back(turn);
  }
  return absl::OkStatus();
}

}  // namespace hgrn2
