#include "server/openai/answer_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "server/openai/json_output.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

template <typename T>
void MoveAppend(std::vector<T> from, std::vector<T>* to) {
  if (to->empty()) {
    *to = std::move(from);
    return;
  }
  to->insert(to->end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

void AppendPromptLogprob(const AnswerInfo& info, int32_t id, float logprob, int32_t rank,
                         const std::string& bytes, std::string* out) {
  out->append("\"");
  AppendJsonInt(id, out);
  out->append("\":{\"logprob\":");
  AppendJsonLogprob(logprob, out);
  out->append(",\"rank\":");
  AppendJsonInt(rank, out);
  out->append(",\"decoded_token\":");
  AppendJsonString(TokenText(info, id, bytes), out);
  out->append("}");
}

}  // namespace

AnswerInfo MakeAnswerInfo(const GenerationBody& body, std::string id, const Frontend& frontend,
                          int64_t created) {
  const SamplingRequest& sampling = body.request.sampling;
  AnswerInfo info;
  info.id = std::move(id);
  info.model = frontend.served_model_name();
  info.created = created;
  info.tokenizer = frontend.tokenizer();
  info.num_choices = info.num_shown = sampling.n;
  info.logprobs = sampling.logprobs;
  info.prompt_logprobs = sampling.prompt_logprobs;
  info.stop = sampling.stop;
  info.echo = body.request.echo;
  info.skip_special_tokens = sampling.skip_special_tokens;
  info.include_usage = body.include_usage;
  info.continuous_usage = body.continuous_usage_stats;
  info.return_token_ids = body.return_token_ids;
  info.tokens_as_ids = body.return_tokens_as_token_ids;
  return info;
}

void AnswerFormat::Fail(const std::string& error, std::string* out) {
  std::string_view line = error;
  while (line.ends_with('\n')) line.remove_suffix(1);
  out->append("data: ").append(line).append("\n\ndata: [DONE]\n\n");
}

void MergeDelta(ChoiceDelta delta, ChoiceDelta* into) {
  into->index = delta.index;
  if (into->text.empty()) {
    into->text = std::move(delta.text);
  } else {
    into->text += delta.text;
  }
  MoveAppend(std::move(delta.token_ids), &into->token_ids);
  MoveAppend(std::move(delta.logprobs), &into->logprobs);
  MoveAppend(std::move(delta.prompt_logprobs), &into->prompt_logprobs);
  if (delta.finish_reason.has_value()) into->finish_reason = delta.finish_reason;
  if (!delta.stop_reason.empty()) into->stop_reason = std::move(delta.stop_reason);
}

void AppendUsage(const Usage& usage, std::string* out) {
  fmt::format_to(std::back_inserter(*out),
                 "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},"
                 "\"prompt_tokens_details\":{{\"cached_tokens\":{}}}}}",
                 usage.prompt_tokens, usage.completion_tokens,
                 usage.prompt_tokens + usage.completion_tokens, usage.cached_tokens);
}

void AppendStreamEnd(const AnswerInfo& info, const std::string& head, const Usage& usage,
                     std::string* out) {
  if (info.include_usage) {
    out->append("data: ").append(head).append("],\"usage\":");
    AppendUsage(usage, out);
    out->append("}\n\n");
  }
  out->append("data: [DONE]\n\n");
}

void AppendFinishReason(const ChoiceDelta& delta, std::string* out) {
  if (!delta.finish_reason.has_value()) {
    out->append("null");
    return;
  }
  switch (*delta.finish_reason) {
    case FinishReason::kStop:
      out->append("\"stop\"");
      return;
    case FinishReason::kLength:
      out->append("\"length\"");
      return;
    case FinishReason::kAbort:
      out->append("\"abort\"");
      return;
  }
}

void AppendStopReason(const AnswerInfo& info, const ChoiceDelta& delta, std::string* out) {
  if (delta.stop_reason.empty()) {
    out->append("null");
  } else if (std::find(info.stop.begin(), info.stop.end(), delta.stop_reason) != info.stop.end()) {
    AppendJsonString(delta.stop_reason, out);
  } else {
    out->append(delta.stop_reason);  // a stop token's id
  }
}

void AppendTokenIds(const std::vector<int32_t>& ids, std::string* out) {
  out->push_back('[');
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out->push_back(',');
    AppendJsonInt(ids[i], out);
  }
  out->push_back(']');
}

void AppendPromptLogprobs(const AnswerInfo& info, const std::vector<TokenInfo>& tokens,
                          std::string* out) {
  out->push_back('[');
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out->push_back(',');
    const TokenInfo& token = tokens[i];
    if (!token.has_logprob) {
      out->append("null");
      continue;
    }
    out->push_back('{');
    AppendPromptLogprob(info, token.score.token_id, token.score.logprob, token.score.rank,
                        token.bytes, out);
    const auto shown = std::min<size_t>(token.score.top.size(), info.prompt_logprobs);
    for (size_t k = 0; k < shown; ++k) {
      if (token.score.top[k].token_id == token.score.token_id) continue;
      out->push_back(',');
      AppendPromptLogprob(info, token.score.top[k].token_id, token.score.top[k].logprob,
                          static_cast<int32_t>(k) + 1, token.top_bytes[k], out);
    }
    out->push_back('}');
  }
  out->push_back(']');
}

std::string TokenText(const AnswerInfo& info, int32_t id, const std::string& bytes) {
  if (info.tokens_as_ids || info.tokenizer == nullptr) return fmt::format("token_id:{}", id);
  if (IsUtf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char c : bytes) {
    fmt::format_to(std::back_inserter(text), "\\x{:02x}", static_cast<unsigned char>(c));
  }
  return text;
}

}  // namespace hgrn2
