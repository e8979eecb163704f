#include "engine/frontend/validate.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/status.h"

namespace hgrn2 {
namespace {

template <typename T>
absl::Status CheckRange(std::string_view field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();  // also refuses NaN
  return InvalidArgument(field, "must be in [{}, {}], got {}", low, high, value);
}

absl::Status CheckTokenId(std::string_view field, int32_t id, const ModelConfig& config) {
  if (id >= 0 && id < config.vocab_size) return absl::OkStatus();
  return InvalidArgument(field, "token id {} is outside the vocabulary [0, {})", id,
                         config.vocab_size);
}

absl::Status CheckListSize(std::string_view field, size_t size, size_t limit) {
  if (size <= limit) return absl::OkStatus();
  return InvalidArgument(field, "at most {} entries, got {}", limit, size);
}

// `field` prefixed to an INVALID_ARGUMENT of the tokenizer.
absl::StatusOr<std::vector<int32_t>> EncodeField(const ValidationContext& context,
                                                 std::string_view field, const std::string& text,
                                                 bool add_special_tokens) {
  if (context.tokenizer == nullptr) {
    return InvalidArgument(field, "this model has no tokenizer; send token ids instead of text");
  }
  auto ids = context.tokenizer->Encode(text, add_special_tokens);
  if (!ids.ok()) return InvalidArgument(field, "{}", ToStd(ids.status().message()));
  RETURN_IF_ERROR(CheckTokenIds(field, *ids, *context.config));
  return ids;
}

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const ValidationContext& context,
                                                  std::string_view field, const PromptInput& prompt,
                                                  bool add_special_tokens) {
  std::vector<int32_t> ids;
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    if (!text->empty() || context.tokenizer != nullptr) {
      ASSIGN_OR_RETURN(ids, EncodeField(context, field, *text, add_special_tokens));
    }
  } else {
    ids = std::get<std::vector<int32_t>>(prompt);
    RETURN_IF_ERROR(CheckTokenIds(field, ids, *context.config));
  }
  if (static_cast<int64_t>(ids.size()) > context.max_prompt_tokens) {
    return InvalidArgument(field, "at most {} tokens, got {}", context.max_prompt_tokens,
                           ids.size());
  }
  return ids;
}

// As EncodePrompt; an empty prompt stands for the model's BOS token.
absl::StatusOr<std::vector<int32_t>> EncodeContext(const ValidationContext& context,
                                                   std::string_view field,
                                                   const PromptInput& prompt,
                                                   bool add_special_tokens) {
  ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                   EncodePrompt(context, field, prompt, add_special_tokens));
  if (ids.empty() && context.config->bos_token_id >= 0) ids = {context.config->bos_token_id};
  if (ids.empty()) return InvalidArgument(field, "must not be empty (this model has no BOS token)");
  return ids;
}

absl::Status FillScalars(const GenerationDefaults& defaults, const SamplingRequest& request,
                         SamplingScalars* scalars) {
  const bool greedy = defaults.do_sample.has_value() && !*defaults.do_sample;
  scalars->temperature =
      request.temperature.value_or(greedy ? 0.0f : defaults.temperature.value_or(1.0f));
  scalars->top_p = request.top_p.value_or(defaults.top_p.value_or(1.0f));
  scalars->top_k = request.top_k.value_or(defaults.top_k.value_or(0));
  scalars->min_p = request.min_p.value_or(defaults.min_p.value_or(0.0f));
  scalars->presence_penalty = request.presence_penalty;
  scalars->frequency_penalty = request.frequency_penalty;
  scalars->repetition_penalty =
      request.repetition_penalty.value_or(defaults.repetition_penalty.value_or(1.0f));
  scalars->logprobs = request.logprobs;
  RETURN_IF_ERROR(CheckRange("temperature", scalars->temperature, 0.0f, 100.0f));
  // Below this the quotient logit / temperature overflows; the result is greedy either way.
  if (scalars->temperature < 1e-4f) scalars->temperature = 0.0f;
  if (!(scalars->top_p > 0.0f && scalars->top_p <= 1.0f)) {
    return InvalidArgument("top_p", "must be in (0, 1], got {}", scalars->top_p);
  }
  if (scalars->top_k < -1) {
    return InvalidArgument("top_k", "must be -1 or 0 (off) or positive, got {}", scalars->top_k);
  }
  RETURN_IF_ERROR(CheckRange("min_p", scalars->min_p, 0.0f, 1.0f));
  RETURN_IF_ERROR(CheckRange("presence_penalty", scalars->presence_penalty, -2.0f, 2.0f));
  RETURN_IF_ERROR(CheckRange("frequency_penalty", scalars->frequency_penalty, -2.0f, 2.0f));
  if (!(scalars->repetition_penalty > 0.0f && scalars->repetition_penalty <= 100.0f)) {
    return InvalidArgument("repetition_penalty", "must be in (0, 100], got {}",
                           scalars->repetition_penalty);
  }
  return CheckRange("logprobs", scalars->logprobs, -1, kMaxLogprobs);
}

absl::Status FillBadWords(const ValidationContext& context, const SamplingRequest& request,
                          EngineRequest* out) {
  RETURN_IF_ERROR(CheckListSize("bad_words", request.bad_words.size(), kMaxListEntries));
  for (const std::string& word : request.bad_words) {
    if (word.empty()) return InvalidArgument("bad_words", "must not contain an empty text");
    // A word begins differently in the middle of a sentence.
    for (const std::string& form : {word, " " + word}) {
      ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodeField(context, "bad_words", form, false));
      if (!ids.empty() &&
          std::find(out->bad_words.begin(), out->bad_words.end(), ids) == out->bad_words.end()) {
        out->bad_words.push_back(std::move(ids));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status FillTokenLists(const ValidationContext& context, const SamplingRequest& request,
                            EngineRequest* out) {
  const ModelConfig& config = *context.config;
  RETURN_IF_ERROR(CheckListSize("logit_bias", request.logit_bias.size(), kMaxListEntries));
  for (const auto& [id, bias] : request.logit_bias) {
    RETURN_IF_ERROR(CheckTokenId("logit_bias", id, config));
    RETURN_IF_ERROR(CheckRange("logit_bias", bias, -100.0f, 100.0f));
  }
  out->logit_bias = request.logit_bias;
  RETURN_IF_ERROR(CheckTokenIds("allowed_token_ids", request.allowed_token_ids, config));
  out->allowed_token_ids = request.allowed_token_ids;
  std::sort(out->allowed_token_ids.begin(), out->allowed_token_ids.end());
  out->allowed_token_ids.erase(
      std::unique(out->allowed_token_ids.begin(), out->allowed_token_ids.end()),
      out->allowed_token_ids.end());
  RETURN_IF_ERROR(CheckListSize("stop_token_ids", request.stop_token_ids.size(), kMaxListEntries));
  RETURN_IF_ERROR(CheckTokenIds("stop_token_ids", request.stop_token_ids, config));
  out->stop_token_ids = request.stop_token_ids;
  if (!request.ignore_eos) {
    const std::vector<int32_t>& eos = EosTokenIds(config, *context.defaults);
    out->stop_token_ids.insert(out->stop_token_ids.end(), eos.begin(), eos.end());
  }
  return FillBadWords(context, request, out);
}

absl::Status CheckStopStrings(const ValidationContext& context, const SamplingRequest& request) {
  RETURN_IF_ERROR(CheckListSize("stop", request.stop.size(), kMaxStopStrings));
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return InvalidArgument("stop", "must not contain an empty text");
    if (stop.size() > kMaxStopStringBytes) {
      return InvalidArgument("stop", "at most {} bytes each, got {}", kMaxStopStringBytes,
                             stop.size());
    }
  }
  if (!request.stop.empty() && context.tokenizer == nullptr) {
    return InvalidArgument("stop", "this model has no tokenizer; use stop_token_ids");
  }
  return absl::OkStatus();
}

// Everything of an EngineRequest but its prompt.
absl::StatusOr<EngineRequest> SamplingToEngine(const ValidationContext& context,
                                               const SamplingRequest& request, uint64_t seed) {
  EngineRequest out;
  out.max_tokens = request.max_tokens.value_or(context.defaults->max_new_tokens.value_or(16));
  RETURN_IF_ERROR(CheckRange("max_tokens", out.max_tokens, 1, kMaxTokens));
  if (request.min_tokens < 0 || request.min_tokens > out.max_tokens) {
    return InvalidArgument("min_tokens", "must be in [0, max_tokens = {}], got {}", out.max_tokens,
                           request.min_tokens);
  }
  out.min_tokens = static_cast<uint32_t>(request.min_tokens);
  RETURN_IF_ERROR(CheckRange("n", request.n, 1, kMaxChoices));
  out.num_choices = request.n;
  RETURN_IF_ERROR(FillScalars(*context.defaults, request, &out.sampling));
  out.sampling.seed = request.seed.value_or(seed);
  RETURN_IF_ERROR(CheckRange("prompt_logprobs", request.prompt_logprobs, -1, kMaxLogprobs));
  out.prompt_logprobs = request.prompt_logprobs;
  RETURN_IF_ERROR(CheckStopStrings(context, request));
  RETURN_IF_ERROR(FillTokenLists(context, request, &out));
  return out;
}

}  // namespace

const std::vector<int32_t>& EosTokenIds(const ModelConfig& config,
                                        const GenerationDefaults& defaults) {
  return defaults.eos_token_ids.empty() ? config.eos_token_ids : defaults.eos_token_ids;
}

absl::Status CheckTokenIds(std::string_view field, const std::vector<int32_t>& ids,
                           const ModelConfig& config) {
  for (const int32_t id : ids) RETURN_IF_ERROR(CheckTokenId(field, id, config));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<EngineRequest>> ToEngineRequests(const ValidationContext& context,
                                                            const CompletionRequest& request,
                                                            uint64_t seed) {
  const size_t count = request.prompts.size();
  if (count < 1 || count > kMaxPrompts) {
    return InvalidArgument("prompts", "needs 1 to {} prompts, got {}", kMaxPrompts, count);
  }
  RETURN_IF_ERROR(CheckRange("priority", request.priority, -kMaxPriority, kMaxPriority));
  ASSIGN_OR_RETURN(EngineRequest common, SamplingToEngine(context, request.sampling, seed));
  common.id = request.request_id;
  common.priority = request.priority;
  common.deadline = request.deadline;
  // Echoed prompts carry log-probabilities when the completion does.
  if (request.echo) {
    common.prompt_logprobs = std::max(common.prompt_logprobs, request.sampling.logprobs);
  }
  std::vector<EngineRequest> out;
  for (size_t i = 0; i < count; ++i) {
    const std::string field = count == 1 ? "prompt" : fmt::format("prompts[{}]", i);
    EngineRequest one = common;
    ASSIGN_OR_RETURN(one.prompt,
                     EncodeContext(context, field, request.prompts[i], request.add_special_tokens));
    out.push_back(std::move(one));
  }
  return out;
}

absl::StatusOr<EngineRequest> ToEngineRequest(const ValidationContext& context,
                                              const ScoreInput& input) {
  const size_t count = input.continuations.size();
  if (count < 1 || count > kMaxContinuations) {
    return InvalidArgument("continuations", "needs 1 to {} continuations, got {}",
                           kMaxContinuations, count);
  }
  RETURN_IF_ERROR(CheckRange("top_logprobs", input.top_logprobs, 0, kMaxLogprobs));
  RETURN_IF_ERROR(CheckRange("priority", input.priority, -kMaxPriority, kMaxPriority));
  EngineRequest out;
  out.id = input.request_id;
  out.priority = input.priority;
  out.deadline = input.deadline;
  out.score_top_n = input.top_logprobs;
  ASSIGN_OR_RETURN(
      out.prompt,
      EncodeContext(context, "context", input.context.value_or(PromptInput(std::vector<int32_t>())),
                    input.add_special_tokens));
  int64_t total = static_cast<int64_t>(out.prompt.size());
  for (size_t i = 0; i < count; ++i) {
    const std::string field = fmt::format("continuations[{}]", i);
    ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                     EncodePrompt(context, field, input.continuations[i], false));
    if (ids.empty()) return InvalidArgument(field, "must not be empty");
    total += static_cast<int64_t>(ids.size());
    out.continuations.push_back(std::move(ids));
  }
  if (total > context.max_prompt_tokens) {
    return InvalidArgument("continuations", "at most {} tokens in all with the context, got {}",
                           context.max_prompt_tokens, total);
  }
  return out;
}

}  // namespace hgrn2
