// The bodies of POST /tokenize and /detokenize, as vLLM has them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/openai/chat_body.h"

namespace hgrn2 {

struct TokenizeBody {
  std::string model;
  std::optional<std::string> prompt;  // either this or messages
  Conversation conversation;
  std::optional<bool> add_special_tokens;
  bool return_token_strs = false;
};

struct DetokenizeBody {
  std::string model;
  std::vector<int32_t> tokens;
  bool skip_special_tokens = false;
};

const std::vector<Field<TokenizeBody>>& TokenizeFields();
const std::vector<Field<DetokenizeBody>>& DetokenizeFields();

absl::StatusOr<TokenizeBody> ParseTokenizeBody(const Json& object);
absl::StatusOr<DetokenizeBody> ParseDetokenizeBody(const Json& object);

}  // namespace hgrn2
