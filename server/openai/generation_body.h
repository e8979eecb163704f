// What /v1/completions, /v1/chat/completions and /v1/responses have in common in a request.
#pragma once

#include <string>
#include <vector>

#include "engine/frontend/frontend.h"
#include "server/openai/fields.h"
#include "server/trace_context.h"

namespace hgrn2 {

struct GenerationBody {
  CompletionRequest request;  // prompts and logprobs are the endpoint's to set
  bool stream = false;
  bool include_usage = false;           // stream_options: a last chunk with the usage
  bool continuous_usage_stats = false;  // stream_options: the usage so far in every chunk
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;
  float timeout = 0;   // seconds; 0: none
  TraceContext trace;  // of the request's headers
};

// Sampling parameters as vLLM and OpenAI spell them. Ranges are the frontend's to check.
const std::vector<Field<GenerationBody>>& SamplingFields();
// Streaming, priorities, and what is accepted without effect or only without effect.
const std::vector<Field<GenerationBody>>& ServingFields();

// A reader of a field that OpenAI defines and that changes nothing here, such as metadata.
absl::Status IgnoreValue(const Json& value, std::string_view field, GenerationBody* body);
// Readers of fields that would change something, were they not refused: they take only the values
// that ask for nothing.
absl::Status OnlyFalse(const Json& value, std::string_view field, GenerationBody* body);
absl::Status OnlyEmpty(const Json& value, std::string_view field, GenerationBody* body);
absl::Status OnlyNeutralText(const Json& value, std::string_view field, GenerationBody* body);
// {"type": "text"}
absl::Status OnlyTextFormat(const Json& value, std::string_view field, GenerationBody* body);

}  // namespace hgrn2
