#include "server/openai/chat_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "server/openai/json_output.h"

namespace hgrn2 {
namespace {

std::string Head(const AnswerInfo& info, const char* object) {
  std::string head = "{\"id\":";
  AppendJsonString(info.id, &head);
  fmt::format_to(std::back_inserter(head), ",\"object\":\"{}\",\"created\":{},\"model\":", object,
                 info.created);
  AppendJsonString(info.model, &head);
  return head + ",\"choices\":[";
}

void AppendToken(const AnswerInfo& info, int32_t id, float logprob, const std::string& bytes,
                 std::string* out) {
  out->append("{\"token\":");
  AppendJsonString(TokenText(info, id, bytes), out);
  out->append(",\"logprob\":");
  AppendJsonLogprob(logprob, out);
  out->append(",\"bytes\":[");
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out->push_back(',');
    AppendJsonInt(static_cast<unsigned char>(bytes[i]), out);
  }
  out->push_back(']');
}

void AppendLogprobs(const AnswerInfo& info, const ChoiceDelta& delta, std::string* out) {
  out->append("\"logprobs\":");
  if (info.logprobs < 0) {
    out->append("null");
    return;
  }
  out->append("{\"content\":");
  AppendTokenLogprobs(info, delta.logprobs, out);
  out->append(",\"refusal\":null}");
}

void AppendEnd(const AnswerInfo& info, const ChoiceDelta& delta, std::string* out) {
  out->append(",\"finish_reason\":");
  AppendFinishReason(delta, out);
  out->append(",\"stop_reason\":");
  AppendStopReason(info, delta, out);
  if (info.return_token_ids) {
    out->append(",\"token_ids\":");
    AppendTokenIds(delta.token_ids, out);
  }
  out->push_back('}');
}

}  // namespace

void AppendTokenLogprobs(const AnswerInfo& info, const std::vector<TokenInfo>& tokens,
                         std::string* out) {
  out->push_back('[');
  for (size_t i = 0; i < tokens.size(); ++i) {
    const TokenInfo& token = tokens[i];
    if (i > 0) out->push_back(',');
    AppendToken(info, token.score.token_id, token.score.logprob, token.bytes, out);
    out->append(",\"top_logprobs\":[");
    const auto shown = std::min<size_t>(token.score.top.size(), info.logprobs);
    for (size_t k = 0; k < shown; ++k) {
      if (k > 0) out->push_back(',');
      AppendToken(info, token.score.top[k].token_id, token.score.top[k].logprob, token.top_bytes[k],
                  out);
      out->push_back('}');
    }
    out->append("]}");
  }
  out->push_back(']');
}

ChatFormat::ChatFormat(AnswerInfo info)
    : info_(std::move(info)), head_(Head(info_, "chat.completion.chunk")) {}

std::string ChatFormat::Whole(std::vector<ChoiceDelta> choices, const Usage& usage) {
  std::string out = Head(info_, "chat.completion");
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out.push_back(',');
    out.append("{\"index\":");
    AppendJsonInt(static_cast<int64_t>(i), &out);
    out.append(",\"message\":{\"role\":\"assistant\",\"content\":");
    AppendJsonString(choices[i].text, &out);
    out.append(",\"refusal\":null,\"annotations\":[]},");
    AppendLogprobs(info_, choices[i], &out);
    AppendEnd(info_, choices[i], &out);
  }
  out.append("],\"usage\":");
  AppendUsage(usage, &out);
  if (info_.prompt_logprobs >= 0 && !choices.empty()) {
    out.append(",\"prompt_logprobs\":");
    AppendPromptLogprobs(info_, choices[0].prompt_logprobs, &out);
  }
  if (info_.return_token_ids && !info_.prompt_ids.empty()) {
    out.append(",\"prompt_token_ids\":");
    AppendTokenIds(info_.prompt_ids[0], &out);
  }
  return out + "}\n";
}

void ChatFormat::AppendChunk(const ChoiceDelta& delta, const std::string& content,
                             const Usage& usage, std::string* out) const {
  out->append("data: ").append(head_).append("{\"index\":");
  AppendJsonInt(delta.index, out);
  out->append(",\"delta\":").append(content).append(",");
  AppendLogprobs(info_, delta, out);
  AppendEnd(info_, delta, out);
  out->push_back(']');
  if (info_.continuous_usage) {
    out->append(",\"usage\":");
    AppendUsage(usage, out);
  } else if (info_.include_usage) {
    out->append(",\"usage\":null");
  }
  out->append("}\n\n");
}

void ChatFormat::Delta(ChoiceDelta delta, const Usage& usage, std::string* out) {
  const auto index = static_cast<size_t>(delta.index);
  if (started_.size() <= index) started_.resize(index + 1);
  if (!started_[index]) {
    started_[index] = true;
    ChoiceDelta role;
    role.index = delta.index;
    AppendChunk(role, "{\"role\":\"assistant\",\"content\":\"\"}", usage, out);
  }
  std::string content = "{}";
  if (!delta.text.empty() || !delta.finish_reason.has_value()) {
    content = "{\"content\":";
    AppendJsonString(delta.text, &content);
    content += '}';
  }
  AppendChunk(delta, content, usage, out);
}

void ChatFormat::End(const Usage& usage, std::string* out) {
  AppendStreamEnd(info_, head_, usage, out);
}

}  // namespace hgrn2
