#include "server/openai/completion_body.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "engine/frontend/validate.h"

namespace hgrn2 {
namespace {

// A text, a list of token ids, or a list of texts and lists of token ids.
absl::Status ReadPrompt(const Json& value, std::string_view field, CompletionBody* body) {
  std::vector<PromptInput>& prompts = body->request.prompts;
  const auto add = [&](const Json& one, const std::string& name) -> absl::Status {
    if (one.is_string()) {
      prompts.emplace_back(one.get<std::string>());
      return absl::OkStatus();
    }
    std::vector<int32_t> ids;
    RETURN_IF_ERROR(ReadValue(one, name, &ids));
    prompts.emplace_back(std::move(ids));
    return absl::OkStatus();
  };
  if (value.is_array() && value.empty()) return InvalidArgument(field, "must not be empty");
  const bool is_list = value.is_array() && !value.empty() && !value[0].is_number();
  if (!is_list) {
    if (value.is_string() || value.is_array()) return add(value, std::string(field));
    return InvalidArgument(field, "must be text, token ids, or a list of either");
  }
  if (value.size() > kMaxPrompts) {
    return InvalidArgument(field, "at most {} prompts, got {}", kMaxPrompts, value.size());
  }
  for (size_t i = 0; i < value.size(); ++i) {
    RETURN_IF_ERROR(add(value[i], fmt::format("{}[{}]", field, i)));
  }
  return absl::OkStatus();
}

absl::Status ReadLogprobs(const Json& value, std::string_view field, CompletionBody* body) {
  int32_t& out = body->request.sampling.logprobs;
  RETURN_IF_ERROR(ReadValue(value, field, &out));
  if (out < 0) return InvalidArgument(field, "must be in [0, 20], got {}", out);
  return absl::OkStatus();
}

absl::Status CheckBestOf(CompletionBody* body) {
  SamplingRequest& sampling = body->request.sampling;
  body->num_shown = sampling.n;
  if (!body->best_of.has_value() || *body->best_of == sampling.n) return absl::OkStatus();
  if (*body->best_of < sampling.n || *body->best_of > kMaxChoices) {
    return InvalidArgument("best_of", "must be in [n = {}, {}], got {}", sampling.n, kMaxChoices,
                           *body->best_of);
  }
  if (body->stream) {
    return InvalidArgument("best_of", "must be n with stream: which are best is known at the end");
  }
  if (sampling.n < 1) return InvalidArgument("n", "must be in [1, {}]", kMaxChoices);
  sampling.n = *body->best_of;
  return absl::OkStatus();
}

}  // namespace

const std::vector<Field<CompletionBody>>& CompletionFields() {
  static const std::vector<Field<CompletionBody>> fields = {
      {"prompt",
       R"({"oneOf":[{"type":"string"},{"type":"array","items":{"type":"integer"}},)"
       R"({"type":"array","maxItems":128,"items":{"oneOf":[{"type":"string"},)"
       R"({"type":"array","items":{"type":"integer"}}]}}]})",
       "Text, token ids, or a list of either.", ReadPrompt, R"("Once upon a time")", true},
      {"max_tokens", R"({"type":"integer","minimum":0,"maximum":1048576,"default":16})",
       "Most tokens to generate; 0 only with echo.",
       [](const Json& value, std::string_view field, CompletionBody* body) {
         return ReadValue(value, field, &body->request.sampling.max_tokens);
       },
       "4"},
      {"echo", R"({"type":"boolean","default":false})", "Put the prompt before the completion.",
       [](const Json& value, std::string_view field, CompletionBody* body) {
         return ReadValue(value, field, &body->request.echo);
       },
       "true"},
      {"logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
       "Log-probabilities of the tokens and of this many alternatives. Of the model's own "
       "distribution, before temperature and filters.",
       ReadLogprobs, "2"},
      {"best_of", R"({"type":"integer","minimum":1,"maximum":128})",
       "Generate this many, show the n with the highest log-probability per token.",
       [](const Json& value, std::string_view field, CompletionBody* body) {
         return ReadValue(value, field, &body->best_of);
       },
       "3"},
      {"suffix", R"({"const":""})", "Not supported.",
       [](const Json& value, std::string_view field, CompletionBody* body) {
         return OnlyEmpty(value, field, body);
       },
       R"("")"},
      {"response_format", R"({"type":"object","properties":{"type":{"const":"text"}}})",
       "Only text.",
       [](const Json& value, std::string_view field, CompletionBody* body) {
         return OnlyTextFormat(value, field, body);
       },
       R"({"type":"text"})"},
  };
  return fields;
}

absl::StatusOr<CompletionBody> ParseCompletionBody(const Json& object) {
  CompletionBody body;
  RETURN_IF_ERROR(ReadFields(object, &body, CompletionFields(), SamplingFields(), ServingFields()));
  SamplingRequest& sampling = body.request.sampling;
  if (body.stream && sampling.prompt_logprobs >= 0) {
    return InvalidArgument("prompt_logprobs", "is not available with stream; use echo");
  }
  RETURN_IF_ERROR(CheckBestOf(&body));
  if (sampling.max_tokens == 0 && body.request.echo) {
    body.prompt_only = true;
    sampling.max_tokens = 1;
  }
  return body;
}

}  // namespace hgrn2
