// Checks a CompletionRequest or ScoreInput against every limit of the API and turns it into engine
// requests. Every refusal names the field and the limit.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/frontend/frontend.h"

namespace hgrn2 {

// What validation needs to know of the model. Pointers outlive the calls.
struct ValidationContext {
  const ModelConfig* config = nullptr;
  const GenerationDefaults* defaults = nullptr;
  const Tokenizer* tokenizer = nullptr;  // may be null
  int32_t max_prompt_tokens = 1 << 20;
};

inline constexpr int32_t kMaxPrompts = 128;
inline constexpr int32_t kMaxChoices = 128;
inline constexpr int32_t kMaxContinuations = 4096;
inline constexpr int32_t kMaxTokens = 1 << 20;
inline constexpr int32_t kMaxLogprobs = 20;
inline constexpr int32_t kMaxStopStrings = 16;
inline constexpr int32_t kMaxStopStringBytes = 1024;
inline constexpr int32_t kMaxListEntries = 4096;  // logit_bias, stop_token_ids, bad_words
inline constexpr int32_t kMaxPriority = 100;

// generation_config.json's end-of-sequence tokens, else config.json's.
const std::vector<int32_t>& EosTokenIds(const ModelConfig& config,
                                        const GenerationDefaults& defaults);

// INVALID_ARGUMENT about `field` for an id outside the vocabulary.
absl::Status CheckTokenIds(std::string_view field, const std::vector<int32_t>& ids,
                           const ModelConfig& config);

// One engine request per prompt, without sinks. `seed` is used if the request has none.
absl::StatusOr<std::vector<EngineRequest>> ToEngineRequests(const ValidationContext& context,
                                                            const CompletionRequest& request,
                                                            uint64_t seed);

// The engine request of a scoring request, without sink.
absl::StatusOr<EngineRequest> ToEngineRequest(const ValidationContext& context,
                                              const ScoreInput& input);

}  // namespace hgrn2
