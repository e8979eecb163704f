// The body of POST /v1/responses.
#pragma once

#include <string>
#include <vector>

#include "server/openai/chat_body.h"

namespace hgrn2 {

struct ResponsesBody : GenerationBody {
  Json input = Json::array();  // messages
  std::string instructions;    // of this response alone
  std::string previous_response_id;
  bool store = true;
  bool logprobs = false;  // include: ["message.output_text.logprobs"]
  int32_t top_logprobs = 0;
  Json metadata = Json::object();
};

const std::vector<Field<ResponsesBody>>& ResponsesFields();
// Those of the common fields that a response, which has one answer, can use.
const std::vector<Field<GenerationBody>>& ResponsesSamplingFields();
const std::vector<Field<GenerationBody>>& ResponsesServingFields();

absl::StatusOr<ResponsesBody> ParseResponsesBody(const Json& object);

}  // namespace hgrn2
