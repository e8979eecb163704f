// The body of POST /v1/completions.
#pragma once

#include <optional>
#include <vector>

#include "server/openai/generation_body.h"

namespace hgrn2 {

struct CompletionBody : GenerationBody {
  std::optional<int32_t> best_of;
  // max_tokens 0 with echo: the prompt's log-probabilities alone. One token is generated all the
  // same and not shown.
  bool prompt_only = false;
  // Choices that are shown per prompt; request.sampling.n is how many are generated.
  int32_t num_shown = 1;
};

const std::vector<Field<CompletionBody>>& CompletionFields();

// Reads and checks what only the body can know; ranges are the frontend's.
absl::StatusOr<CompletionBody> ParseCompletionBody(const Json& object);

}  // namespace hgrn2
