#include "server/openai/tokenize_body.h"

#include "base/status.h"

namespace hgrn2 {
namespace {

template <typename Body, auto Member>
absl::Status Read(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &(body->*Member));
}
template <auto Member>
absl::Status ReadOfConversation(const Json& value, std::string_view field, TokenizeBody* body) {
  return ReadValue(value, field, &(body->conversation.*Member));
}

}  // namespace

const std::vector<Field<TokenizeBody>>& TokenizeFields() {
  using Body = TokenizeBody;
  static const std::vector<Field<Body>> fields = {
      {"model", R"({"type":"string"})", "The served model's name.", Read<Body, &Body::model>,
       nullptr},
      {"prompt", R"({"type":"string"})", "The text. Either this or messages.",
       Read<Body, &Body::prompt>, R"("Hello")"},
      {"messages", R"({"type":"array","items":{"type":"object"}})",
       "A conversation, rendered by the chat template.",
       [](const Json& value, std::string_view field, Body* body) {
         return ReadMessages(value, field, &body->conversation.messages);
       },
       R"([{"role":"user","content":"Hello"}])"},
      {"add_special_tokens", R"({"type":"boolean"})",
       "Apply the tokenizer's special tokens. Default: true for a text; for messages what the "
       "template needs.",
       Read<Body, &Body::add_special_tokens>, "true"},
      {"add_generation_prompt", R"({"type":"boolean","default":true})", "As for chats.",
       ReadOfConversation<&Conversation::add_generation_prompt>, "true"},
      {"continue_final_message", R"({"type":"boolean","default":false})", "As for chats.",
       ReadOfConversation<&Conversation::continue_final_message>, "false"},
      {"chat_template_kwargs", R"({"type":"object"})", "As for chats.",
       ReadOfConversation<&Conversation::template_kwargs>, "{}"},
      {"return_token_strs", R"({"type":"boolean","default":false})", "Adds the tokens' texts.",
       Read<Body, &Body::return_token_strs>, "true"},
  };
  return fields;
}

const std::vector<Field<DetokenizeBody>>& DetokenizeFields() {
  using Body = DetokenizeBody;
  static const std::vector<Field<Body>> fields = {
      {"model", R"({"type":"string"})", "The served model's name.", Read<Body, &Body::model>,
       nullptr},
      {"tokens", R"({"type":"array","items":{"type":"integer"}})", "Token ids.",
       Read<Body, &Body::tokens>, "[5,6]", true},
      {"skip_special_tokens", R"({"type":"boolean","default":false})",
       "Leave special tokens out of the text.", Read<Body, &Body::skip_special_tokens>, "true"},
  };
  return fields;
}

absl::StatusOr<TokenizeBody> ParseTokenizeBody(const Json& object) {
  TokenizeBody body;
  RETURN_IF_ERROR(ReadFields(object, &body, TokenizeFields()));
  if (body.prompt.has_value() == !body.conversation.messages.empty()) {
    return InvalidArgument("prompt", "needs either prompt or messages");
  }
  return body;
}

absl::StatusOr<DetokenizeBody> ParseDetokenizeBody(const Json& object) {
  DetokenizeBody body;
  RETURN_IF_ERROR(ReadFields(object, &body, DetokenizeFields()));
  return body;
}

}  // namespace hgrn2
