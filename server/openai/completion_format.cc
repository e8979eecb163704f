#include "server/openai/completion_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "server/openai/json_output.h"

namespace hgrn2 {
namespace {

// Characters that begin in `bytes`.
int64_t CountCharacters(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

std::string Head(const AnswerInfo& info) {
  std::string head = "{\"id\":";
  AppendJsonString(info.id, &head);
  fmt::format_to(std::back_inserter(head),
                 ",\"object\":\"text_completion\",\"created\":{},\"model\":", info.created);
  AppendJsonString(info.model, &head);
  return head + ",\"choices\":[";
}

double MeanLogprob(const ChoiceDelta& choice) {
  double sum = 0;
  for (const TokenInfo& token : choice.logprobs) sum += token.score.logprob;
  return choice.logprobs.empty() ? 0 : sum / static_cast<double>(choice.logprobs.size());
}

// The prompt's tokens, if echoed, then the answer's.
std::vector<const TokenInfo*> Tokens(const AnswerInfo& info, const ChoiceDelta& delta) {
  std::vector<const TokenInfo*> tokens;
  if (info.echo) {
    for (const TokenInfo& token : delta.prompt_logprobs) tokens.push_back(&token);
  }
  for (const TokenInfo& token : delta.logprobs) tokens.push_back(&token);
  return tokens;
}

// {"token": logprob}: the most probable ones, and the token itself if it is not among them.
void AppendTop(const AnswerInfo& info, const TokenInfo& token, const std::string& text,
               std::string* out) {
  if (!token.has_logprob) {
    out->append("null");
    return;
  }
  out->push_back('{');
  bool listed = false;
  const auto shown = std::min<size_t>(token.score.top.size(), info.logprobs);
  for (size_t i = 0; i < shown; ++i) {
    const TopToken& top = token.score.top[i];
    listed = listed || top.token_id == token.score.token_id;
    if (i > 0) out->push_back(',');
    AppendJsonString(TokenText(info, top.token_id, token.top_bytes[i]), out);
    out->push_back(':');
    AppendJsonLogprob(top.logprob, out);
  }
  if (!listed) {
    if (shown > 0) out->push_back(',');
    AppendJsonString(text, out);
    out->push_back(':');
    AppendJsonLogprob(token.score.logprob, out);
  }
  out->push_back('}');
}

}  // namespace

CompletionFormat::CompletionFormat(AnswerInfo info) : info_(std::move(info)), head_(Head(info_)) {}

void CompletionFormat::AppendLogprobs(const ChoiceDelta& delta, std::string* out) {
  if (text_offsets_.size() <= static_cast<size_t>(delta.index)) {
    text_offsets_.resize(delta.index + 1);
  }
  int64_t& offset = text_offsets_[delta.index];
  std::string texts, logprobs, tops, offsets;
  for (const TokenInfo* token : Tokens(info_, delta)) {
    if (!texts.empty()) {
      for (std::string* list : {&texts, &logprobs, &tops, &offsets}) list->push_back(',');
    }
    const int32_t id = token->score.token_id;
    const std::string text = TokenText(info_, id, token->bytes);
    AppendJsonString(text, &texts);
    if (token->has_logprob) {
      AppendJsonLogprob(token->score.logprob, &logprobs);
    } else {
      logprobs.append("null");
    }
    AppendTop(info_, *token, text, &tops);
    AppendJsonInt(offset, &offsets);
    const bool hidden =
        info_.skip_special_tokens && info_.tokenizer != nullptr && info_.tokenizer->IsSpecial(id);
    if (!hidden) offset += CountCharacters(token->bytes);
  }
  fmt::format_to(std::back_inserter(*out),
                 "{{\"tokens\":[{}],\"token_logprobs\":[{}],\"top_logprobs\":[{}],"
                 "\"text_offset\":[{}]}}",
                 texts, logprobs, tops, offsets);
}

void CompletionFormat::AppendChoice(const ChoiceDelta& delta, int32_t index, std::string* out) {
  out->append("{\"index\":");
  AppendJsonInt(index, out);
  out->append(",\"text\":");
  AppendJsonString(delta.text, out);
  out->append(",\"logprobs\":");
  if (info_.logprobs >= 0) {
    AppendLogprobs(delta, out);
  } else {
    out->append("null");
  }
  out->append(",\"finish_reason\":");
  AppendFinishReason(delta, out);
  out->append(",\"stop_reason\":");
  AppendStopReason(info_, delta, out);
  if (info_.return_token_ids) {
    out->append(",\"token_ids\":");
    AppendTokenIds(delta.token_ids, out);
  }
}

std::vector<const ChoiceDelta*> CompletionFormat::Best(const std::vector<ChoiceDelta>& choices,
                                                       size_t first) const {
  std::vector<const ChoiceDelta*> best;
  for (int32_t c = 0; c < info_.num_choices; ++c) best.push_back(&choices[first + c]);
  if (info_.num_shown == info_.num_choices) return best;
  std::stable_sort(best.begin(), best.end(), [](const ChoiceDelta* a, const ChoiceDelta* b) {
    return MeanLogprob(*a) > MeanLogprob(*b);
  });
  best.resize(info_.num_shown);
  return best;
}

std::string CompletionFormat::Whole(std::vector<ChoiceDelta> choices, const Usage& usage) {
  std::string out = head_;
  int32_t index = 0;
  for (size_t p = 0; p < choices.size() / info_.num_choices; ++p) {
    const size_t first = p * info_.num_choices;
    for (const ChoiceDelta* choice : Best(choices, first)) {
      if (index > 0) out.push_back(',');
      AppendChoice(*choice, index++, &out);
      if (info_.prompt_logprobs >= 0) {
        out.append(",\"prompt_logprobs\":");
        AppendPromptLogprobs(info_, choices[first].prompt_logprobs, &out);
      }
      if (info_.return_token_ids) {
        out.append(",\"prompt_token_ids\":");
        AppendTokenIds(info_.prompt_ids[p], &out);
      }
      out.push_back('}');
    }
  }
  out.append("],\"usage\":");
  AppendUsage(usage, &out);
  return out + "}\n";
}

void CompletionFormat::Delta(ChoiceDelta delta, const Usage& usage, std::string* out) {
  out->append("data: ").append(head_);
  AppendChoice(delta, delta.index, out);
  out->append("}]");
  if (info_.continuous_usage) {
    out->append(",\"usage\":");
    AppendUsage(usage, out);
  } else if (info_.include_usage) {
    out->append(",\"usage\":null");
  }
  out->append("}\n\n");
}

void CompletionFormat::End(const Usage& usage, std::string* out) {
  AppendStreamEnd(info_, head_, usage, out);
}

}  // namespace hgrn2
