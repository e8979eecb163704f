// What a message of an OpenAI-compatible server says, streamed or whole: /v1/completions and
// /v1/chat/completions, with vLLM's additions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "client/load/transport.h"

namespace hgrn2::client {

struct OpenAiMessage {
  bool has_choice = false;
  bool has_text = false;
  bool finished = false;           // carries a finish_reason
  bool aborted = false;            // and it is "abort"
  std::vector<int32_t> token_ids;  // of vLLM's return_token_ids
  int completion_tokens = -1;      // of the answer so far; -1: not said
  int prompt_tokens = -1;
  int cached_tokens = -1;
  double queue_s = -1, prefill_s = -1, decode_s = -1;  // of this project's server
  bool is_error = false;
  int error_code = 0;  // the error's "code", if that is a number
  std::string error;   // its message
};

// Fills `message`, which may be reused. False: not a JSON object, or a member is of the wrong kind.
bool ParseOpenAiMessage(std::string_view json, OpenAiMessage* message);

// Counts tokens over the messages of one answer. By the best that a message offers: token ids,
// running usage, or else one token per piece of text, put right by the usage at the end.
class OpenAiAnswer {
 public:
  // The span in the result refers to `message`.
  AnswerPart Add(const OpenAiMessage& message);
  bool finished() const { return finished_; }

 private:
  int counted_ = 0;
  bool finished_ = false;
};

}  // namespace hgrn2::client
