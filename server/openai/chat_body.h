// The body of POST /v1/chat/completions.
#pragma once

#include <vector>

#include "engine/chat/chat_templates.h"
#include "server/openai/generation_body.h"

namespace hgrn2 {

// A conversation, wherever it came from.
struct Conversation {
  Json messages = Json::array();  // of {"role", "content"}; content is text or text parts
  Json template_kwargs;           // an object, or null
  bool add_generation_prompt = true;
  bool continue_final_message = false;
};

struct ChatBody : GenerationBody {
  Conversation conversation;
  bool logprobs = false;
  int32_t top_logprobs = -1;  // -1: unset
};

const std::vector<Field<ChatBody>>& ChatFields();

// Reads and checks what only the body can know; ranges are the frontend's.
absl::StatusOr<ChatBody> ParseChatBody(const Json& object, const ChatTemplates& chat);

// Checks a list of messages and brings it into the form that templates know: roles system, user and
// assistant, and no member that would be silently dropped.
absl::Status ReadMessages(const Json& value, std::string_view field, Json* out);

// Makes the conversation's text the prompt of `body`, ended by what ends an assistant's turn.
absl::Status RenderPrompt(const ChatTemplates& chat, const Conversation& conversation,
                          GenerationBody* body);

}  // namespace hgrn2
