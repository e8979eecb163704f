#include "server/convert.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/status.h"
#include "server/utf8.h"
#include "server/version.h"

namespace hgrn2 {
namespace {

// Ids are for logs, headers and file names of others: short and printable.
absl::Status CheckPrintable(const char* field, const std::string& text) {
  constexpr size_t kMaxBytes = 256;
  if (text.size() > kMaxBytes) {
    return InvalidArgument(field, "must be at most {} bytes, got {}", kMaxBytes, text.size());
  }
  const bool control = std::any_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (control) return InvalidArgument(field, "must not contain control characters");
  return absl::OkStatus();
}

absl::StatusOr<PromptInput> ToPrompt(v1::Prompt* prompt, const std::string& field) {
  switch (prompt->prompt_case()) {
    case v1::Prompt::kText:
      return PromptInput(std::move(*prompt->mutable_text()));
    case v1::Prompt::kTokens:
      return PromptInput(
          std::vector<int32_t>(prompt->tokens().ids().begin(), prompt->tokens().ids().end()));
    case v1::Prompt::PROMPT_NOT_SET:
      break;
  }
  return InvalidArgument(field, "must have text or tokens");
}

template <typename Repeated>
auto ToVector(Repeated* values) {
  using Value = typename Repeated::value_type;
  return std::vector<Value>(std::make_move_iterator(values->begin()),
                            std::make_move_iterator(values->end()));
}

// -1 means "none" natively; a client says that by leaving the field unset.
absl::Status SetLogprobs(const char* field, int32_t value, int32_t* out) {
  if (value < 0) return InvalidArgument(field, "must be in [0, 20], got {}", value);
  *out = value;
  return absl::OkStatus();
}

absl::StatusOr<SamplingRequest> ToSampling(v1::SamplingParams* in) {
  SamplingRequest out;
  if (in->has_max_tokens()) out.max_tokens = in->max_tokens();
  out.min_tokens = in->min_tokens();
  if (in->has_temperature()) out.temperature = in->temperature();
  if (in->has_top_p()) out.top_p = in->top_p();
  if (in->has_top_k()) out.top_k = in->top_k();
  if (in->has_min_p()) out.min_p = in->min_p();
  out.presence_penalty = in->presence_penalty();
  out.frequency_penalty = in->frequency_penalty();
  if (in->has_repetition_penalty()) out.repetition_penalty = in->repetition_penalty();
  out.logit_bias.assign(in->logit_bias().begin(), in->logit_bias().end());
  std::sort(out.logit_bias.begin(), out.logit_bias.end());  // a map's order is random
  out.allowed_token_ids = ToVector(in->mutable_allowed_token_ids());
  out.bad_words = ToVector(in->mutable_bad_words());
  if (in->has_seed()) out.seed = in->seed();
  if (in->has_n()) out.n = in->n();
  out.stop = ToVector(in->mutable_stop());
  out.stop_token_ids = ToVector(in->mutable_stop_token_ids());
  out.ignore_eos = in->ignore_eos();
  out.include_stop_str_in_output = in->include_stop_str_in_output();
  if (in->has_skip_special_tokens()) out.skip_special_tokens = in->skip_special_tokens();
  if (in->has_logprobs()) RETURN_IF_ERROR(SetLogprobs("logprobs", in->logprobs(), &out.logprobs));
  if (in->has_prompt_logprobs()) {
    RETURN_IF_ERROR(SetLogprobs("prompt_logprobs", in->prompt_logprobs(), &out.prompt_logprobs));
  }
  return out;
}

void ToProto(TokenInfo&& info, v1::TokenLogprob* out) {
  out->set_token_id(info.score.token_id);
  out->set_token(std::move(info.bytes));
  if (!info.has_logprob) return;
  out->set_logprob(info.score.logprob);
  out->set_rank(info.score.rank);
  for (size_t i = 0; i < info.score.top.size(); ++i) {
    v1::TokenLogprob* const top = out->add_top();
    top->set_token_id(info.score.top[i].token_id);
    top->set_logprob(info.score.top[i].logprob);
    top->set_rank(static_cast<int32_t>(i) + 1);
    if (i < info.top_bytes.size()) top->set_token(std::move(info.top_bytes[i]));
  }
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kAbort:
      return v1::FINISH_REASON_ABORT;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<CompletionRequest> ToNative(v1::GenerateRequest&& request) {
  CompletionRequest out;
  RETURN_IF_ERROR(CheckPrintable("request_id", request.request_id()));
  RETURN_IF_ERROR(CheckPrintable("user", request.user()));
  out.model = std::move(*request.mutable_model());
  out.request_id = std::move(*request.mutable_request_id());
  out.prompts.reserve(request.prompts_size());
  for (int i = 0; i < request.prompts_size(); ++i) {
    ASSIGN_OR_RETURN(PromptInput prompt,
                     ToPrompt(request.mutable_prompts(i), fmt::format("prompts[{}]", i)));
    out.prompts.push_back(std::move(prompt));
  }
  ASSIGN_OR_RETURN(out.sampling, ToSampling(request.mutable_sampling()));
  out.echo = request.echo();
  out.priority = request.priority();
  if (request.has_add_special_tokens()) out.add_special_tokens = request.add_special_tokens();
  out.user = std::move(*request.mutable_user());
  out.cache_salt = std::move(*request.mutable_cache_salt());
  return out;
}

absl::StatusOr<ScoreInput> ToNative(v1::ScoreRequest&& request) {
  ScoreInput out;
  RETURN_IF_ERROR(CheckPrintable("request_id", request.request_id()));
  out.model = std::move(*request.mutable_model());
  out.request_id = std::move(*request.mutable_request_id());
  if (request.context().prompt_case() != v1::Prompt::PROMPT_NOT_SET) {
    ASSIGN_OR_RETURN(out.context, ToPrompt(request.mutable_context(), "context"));
  }
  out.continuations.reserve(request.continuations_size());
  for (int i = 0; i < request.continuations_size(); ++i) {
    ASSIGN_OR_RETURN(PromptInput continuation, ToPrompt(request.mutable_continuations(i),
                                                        fmt::format("continuations[{}]", i)));
    out.continuations.push_back(std::move(continuation));
  }
  out.top_logprobs = request.top_logprobs();
  out.priority = request.priority();
  if (request.has_add_special_tokens()) out.add_special_tokens = request.add_special_tokens();
  return out;
}

void AppendTo(ChoiceDelta&& delta, v1::ChoiceDelta* out) {
  out->set_index(delta.index);
  if (out->text().empty()) {
    out->set_text(std::move(delta.text));
  } else {
    out->mutable_text()->append(delta.text);
  }
  out->mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
  for (TokenInfo& info : delta.logprobs) ToProto(std::move(info), out->add_logprobs());
  for (TokenInfo& info : delta.prompt_logprobs) {
    ToProto(std::move(info), out->add_prompt_logprobs());
  }
  if (delta.finish_reason.has_value()) out->set_finish_reason(ToProto(*delta.finish_reason));
  if (!delta.stop_reason.empty()) out->set_stop_reason(SafeUtf8(delta.stop_reason, 4096));
}

int64_t ApproximateBytes(const ChoiceDelta& delta) {
  constexpr int64_t kPerTokenInfo = 16;  // tags, lengths, id, logprob, rank
  int64_t bytes = std::ssize(delta.text) + 4 * std::ssize(delta.token_ids) + 8;
  for (const auto* infos : {&delta.logprobs, &delta.prompt_logprobs}) {
    for (const TokenInfo& info : *infos) {
      bytes += kPerTokenInfo * (1 + std::ssize(info.score.top)) + std::ssize(info.bytes);
      for (const std::string& top : info.top_bytes) bytes += std::ssize(top);
    }
  }
  return bytes;
}

void ToProto(const Usage& usage, v1::Usage* out) {
  out->set_prompt_tokens(usage.prompt_tokens);
  out->set_completion_tokens(usage.completion_tokens);
  out->set_cached_tokens(usage.cached_tokens);
}

void ToProto(const Timing& timing, v1::Timing* out) {
  out->set_queue(timing.queue);
  out->set_prefill(timing.prefill);
  out->set_decode(timing.decode);
}

void ToProto(ContinuationResult&& result, v1::ContinuationScore* out) {
  for (TokenInfo& info : result.tokens) ToProto(std::move(info), out->add_tokens());
  out->set_sum_logprob(result.sum_logprob);
  out->set_is_greedy(result.is_greedy);
}

v1::GetModelResponse DescribeModel(const ModelConfig& config, const std::string& model_hash,
                                   const BackendInfo& backend, const EngineOptions& limits,
                                   const Frontend& frontend) {
  v1::GetModelResponse out;
  out.set_name(frontend.served_model_name());
  out.set_architecture("hgrn2");
  out.set_num_parameters(config.NumParameters());
  out.set_num_layers(config.num_layers);
  out.set_hidden_size(config.hidden_size);
  out.set_num_heads(config.num_heads);
  out.set_head_dim(config.head_dim);
  out.set_intermediate_size(config.intermediate_size);
  out.set_vocab_size(config.vocab_size);
  out.set_dtype(Name(backend.dtype));
  out.set_state_dtype(Name(backend.state_dtype));
  out.set_state_bytes_per_sequence(backend.state_bytes_per_sequence);
  out.set_max_num_seqs(backend.num_slots);
  out.set_max_num_batched_tokens(
      limits.max_num_batched_tokens > 0
          ? std::min(limits.max_num_batched_tokens, backend.max_batched_tokens)
          : backend.max_batched_tokens);
  out.set_max_num_queued_reqs(limits.max_num_queued_reqs);
  out.set_device(backend.device);
  out.set_model_hash(model_hash);
  out.mutable_eos_token_ids()->Add(config.eos_token_ids.begin(), config.eos_token_ids.end());
  if (config.bos_token_id >= 0) out.set_bos_token_id(config.bos_token_id);
  out.set_has_tokenizer(frontend.tokenizer() != nullptr);
  out.set_server_version(ServerVersion());
  return out;
}

}  // namespace hgrn2
