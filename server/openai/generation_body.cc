#include "server/openai/generation_body.h"

#include <algorithm>

#include "base/status.h"

namespace hgrn2 {
namespace {

using Body = GenerationBody;

template <auto Member>
absl::Status Sampling(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &(body->request.sampling.*Member));
}
template <auto Member>
absl::Status Request(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &(body->request.*Member));
}
template <auto Member>
absl::Status Serving(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &(body->*Member));
}

using S = SamplingRequest;
using R = CompletionRequest;

absl::Status ReadStop(const Json& value, std::string_view field, Body* body) {
  return ReadStringOrList(value, field, &body->request.sampling.stop);
}

absl::Status ReadPromptLogprobs(const Json& value, std::string_view field, Body* body) {
  int32_t& out = body->request.sampling.prompt_logprobs;
  RETURN_IF_ERROR(ReadValue(value, field, &out));
  if (out < 0) return InvalidArgument(field, "must be in [0, 20], got {}", out);
  return absl::OkStatus();
}

absl::Status ReadStreamOptions(const Json& value, std::string_view field, Body* body) {
  static const std::vector<Field<Body>> options = {
      {"include_usage", "", "", Serving<&Body::include_usage>, "true"},
      {"continuous_usage_stats", "", "", Serving<&Body::continuous_usage_stats>, "true"},
      {"include_obfuscation", "", "", OnlyFalse, "false"},
  };
  if (!value.is_object()) return InvalidArgument(field, "must be an object");
  return ReadFields(value, body, options);
}

absl::Status ReadModel(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &body->request.model);
}

absl::Status ReadUser(const Json& value, std::string_view field, Body* body) {
  return ReadPrintable(value, field, &body->request.user);
}

absl::Status ReadRequestId(const Json& value, std::string_view field, Body* body) {
  return ReadPrintable(value, field, &body->request.request_id);
}

absl::Status ReadTimeout(const Json& value, std::string_view field, Body* body) {
  RETURN_IF_ERROR(ReadValue(value, field, &body->timeout));
  if (body->timeout > 0 && body->timeout <= 86400) return absl::OkStatus();
  return InvalidArgument(field, "must be seconds in (0, 86400], got {}", body->timeout);
}

absl::Status OnlyOne(const Json& value, std::string_view field, Body*) {
  if (value.is_number() && value.get<double>() == 1) return absl::OkStatus();
  return InvalidArgument(field, "is not supported; only 1 is taken");
}

absl::Status OnlyTrue(const Json& value, std::string_view field, Body*) {
  if (value == true) return absl::OkStatus();
  return InvalidArgument(field, "is not supported; only true is taken");
}

}  // namespace

absl::Status IgnoreValue(const Json&, std::string_view, GenerationBody*) {
  return absl::OkStatus();
}

absl::Status OnlyFalse(const Json& value, std::string_view field, GenerationBody*) {
  if (value == false) return absl::OkStatus();
  return InvalidArgument(field, "is not supported; only false is taken");
}

absl::Status OnlyEmpty(const Json& value, std::string_view field, GenerationBody*) {
  if ((value.is_structured() && value.empty()) || value == "") return absl::OkStatus();
  return InvalidArgument(field, "is not supported");
}

absl::Status OnlyNeutralText(const Json& value, std::string_view field, GenerationBody*) {
  if (value == "auto" || value == "default" || value == "none" || value == "disabled") {
    return absl::OkStatus();
  }
  return InvalidArgument(field, "is not supported; only auto, default, none or disabled are taken");
}

absl::Status OnlyTextFormat(const Json& value, std::string_view field, GenerationBody*) {
  if (value.is_object() && value.size() == 1 && value.contains("type") && value["type"] == "text") {
    return absl::OkStatus();
  }
  return InvalidArgument(field, "constrained output is not supported; only {{\"type\": \"text\"}}");
}

const std::vector<Field<GenerationBody>>& SamplingFields() {
  static const std::vector<Field<GenerationBody>> fields = {
      {"min_tokens", R"({"type":"integer","minimum":0,"default":0})",
       "Tokens before which neither an end-of-sequence token nor a stop ends the answer.",
       Sampling<&S::min_tokens>, "1"},
      {"temperature", R"({"type":"number","minimum":0,"maximum":100})",
       "0: always the most probable token. Default: the checkpoint's, else 1.",
       Sampling<&S::temperature>, "0.7"},
      {"top_p", R"({"type":"number","exclusiveMinimum":0,"maximum":1})",
       "Keep the most probable tokens that together reach this probability.", Sampling<&S::top_p>,
       "0.9"},
      {"top_k", R"({"type":"integer","minimum":-1})",
       "Keep this many of the most probable tokens; 0 or -1: all.", Sampling<&S::top_k>, "40"},
      {"min_p", R"({"type":"number","minimum":0,"maximum":1})",
       "Keep tokens at least this probable in relation to the most probable one.",
       Sampling<&S::min_p>, "0.05"},
      {"presence_penalty", R"({"type":"number","minimum":-2,"maximum":2,"default":0})",
       "Subtracted from the logits of tokens that were generated.", Sampling<&S::presence_penalty>,
       "0.5"},
      {"frequency_penalty", R"({"type":"number","minimum":-2,"maximum":2,"default":0})",
       "Subtracted from the logit of a token per time it was generated.",
       Sampling<&S::frequency_penalty>, "0.5"},
      {"repetition_penalty", R"({"type":"number","exclusiveMinimum":0,"maximum":100})",
       "Divides positive and multiplies negative logits of tokens in prompt or answer.",
       Sampling<&S::repetition_penalty>, "1.1"},
      {"logit_bias",
       R"({"type":"object","additionalProperties":{"type":"number","minimum":-100,"maximum":100}})",
       "Token ids, as texts, to values added to their logits.", Sampling<&S::logit_bias>,
       R"({"17":-100})"},
      {"allowed_token_ids", R"({"type":"array","items":{"type":"integer"}})",
       "If not empty, only these tokens can be generated.", Sampling<&S::allowed_token_ids>,
       "[10,11,12]"},
      {"bad_words", R"({"type":"array","items":{"type":"string"}})",
       "Texts that are not generated.", Sampling<&S::bad_words>, R"(["darkness"])"},
      {"seed", R"({"type":"integer"})",
       "Same prompt, parameters and seed: same tokens. Default: random.", Sampling<&S::seed>, "42"},
      {"n", R"({"type":"integer","minimum":1,"maximum":128,"default":1})", "Choices per prompt.",
       Sampling<&S::n>, "2"},
      {"stop", R"({"type":["string","array"],"items":{"type":"string"}})",
       "A text, or up to 16, that end the answer.", ReadStop, R"(["\n\n"])"},
      {"stop_token_ids", R"({"type":"array","items":{"type":"integer"}})",
       "Tokens that end the answer.", Sampling<&S::stop_token_ids>, "[5]"},
      {"ignore_eos", R"({"type":"boolean","default":false})", "Go on past end-of-sequence tokens.",
       Sampling<&S::ignore_eos>, "true"},
      {"include_stop_str_in_output", R"({"type":"boolean","default":false})",
       "Keep the stop text that ended the answer.", Sampling<&S::include_stop_str_in_output>,
       "true"},
      {"skip_special_tokens", R"({"type":"boolean","default":true})",
       "Leave special tokens out of the text.", Sampling<&S::skip_special_tokens>, "false"},
      {"prompt_logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
       "The prompt's tokens with their log-probabilities and this many alternatives. Not with "
       "stream.",
       ReadPromptLogprobs, "1"},
  };
  return fields;
}

const std::vector<Field<GenerationBody>>& ServingFields() {
  static const std::vector<Field<GenerationBody>> fields = {
      {"model", R"({"type":"string"})", "The served model's name. Default: that one.", ReadModel,
       nullptr},
      {"stream", R"({"type":"boolean","default":false})",
       "Answer with server-sent events as tokens come.", Serving<&Body::stream>, "false"},
      {"stream_options",
       R"({"type":"object","properties":{"include_usage":{"type":"boolean"},)"
       R"("continuous_usage_stats":{"type":"boolean"},"include_obfuscation":{"const":false}}})",
       "include_usage: a last chunk with the usage. continuous_usage_stats: the usage so far in "
       "every chunk.",
       ReadStreamOptions, R"({"include_usage":true})"},
      {"priority", R"({"type":"integer","minimum":-100,"maximum":100,"default":0})",
       "Lower is served first; who waits gains one level a second.", Request<&R::priority>, "1"},
      {"add_special_tokens", R"({"type":"boolean"})",
       "Apply the tokenizer's own special tokens, such as BOS, to text. Default: true for "
       "completions; for conversations what the chat template needs.",
       Request<&R::add_special_tokens>, "true"},
      {"cache_salt", R"({"type":"string"})",
       "Reserved for prefix caching: states are shared only under equal salts.",
       Request<&R::cache_salt>, R"("tenant")"},
      {"user", R"({"type":"string","maxLength":256})", "An end user's id, for the log.", ReadUser,
       R"("u1")"},
      {"request_id", R"({"type":"string","maxLength":256})",
       "The request's id; wins over the header x-request-id.", ReadRequestId, R"("r1")"},
      {"timeout", R"({"type":"number","exclusiveMinimum":0,"maximum":86400})",
       "Seconds after which the request ends with 504 wherever it is; also the header "
       "x-request-timeout.",
       ReadTimeout, "60"},
      {"return_token_ids", R"({"type":"boolean","default":false})",
       "Adds token_ids to choices (and prompt_token_ids, where there is no stream).",
       Serving<&Body::return_token_ids>, "true"},
      {"return_tokens_as_token_ids", R"({"type":"boolean","default":false})",
       "Writes tokens in logprobs as token_id:N.", Serving<&Body::return_tokens_as_token_ids>,
       "true"},
      // Accepted because clients send them; without effect.
      {"metadata", R"({"type":"object"})", "Accepted, without effect.", IgnoreValue,
       R"({"a":"b"})"},
      {"store", R"({"type":"boolean"})", "Accepted, without effect.", IgnoreValue, "false"},
      {"service_tier", R"({"type":"string"})", "Accepted, without effect.", IgnoreValue,
       R"("auto")"},
      {"safety_identifier", R"({"type":"string"})", "Accepted, without effect.", IgnoreValue,
       R"("x")"},
      {"prompt_cache_key", R"({"type":"string"})", "Accepted, without effect.", IgnoreValue,
       R"("x")"},
      // Accepted only where they ask for nothing.
      {"use_beam_search", R"({"const":false})", "Not supported.", OnlyFalse, "false"},
      {"length_penalty", R"({"const":1})", "Not supported.", OnlyOne, "1.0"},
      {"early_stopping", R"({"const":false})", "Not supported.", OnlyFalse, "false"},
      {"spaces_between_special_tokens", R"({"const":true})", "Not supported.", OnlyTrue, "true"},
      {"detokenize", R"({"const":true})", "Not supported.", OnlyTrue, "true"},
      {"logits_processors", R"({"type":"array","maxItems":0})", "Not supported.", OnlyEmpty, "[]"},
  };
  return fields;
}

}  // namespace hgrn2
