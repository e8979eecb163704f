// Answers of /v1/chat/completions.
#pragma once

#include <string>
#include <vector>

#include "server/openai/answer_format.h"

namespace hgrn2 {

class ChatFormat : public AnswerFormat {
 public:
  explicit ChatFormat(AnswerInfo info);

  std::string Whole(std::vector<ChoiceDelta> choices, const Usage& usage) override;
  void Delta(ChoiceDelta delta, const Usage& usage, std::string* out) override;
  void End(const Usage& usage, std::string* out) override;

 private:
  // A chunk of one choice with the JSON of its delta.
  void AppendChunk(const ChoiceDelta& delta, const std::string& content, const Usage& usage,
                   std::string* out) const;

  const AnswerInfo info_;
  const std::string head_;     // what every chunk begins with
  std::vector<bool> started_;  // per choice: its role was sent
};

// OpenAI's list of {"token", "logprob", "bytes", "top_logprobs"} of the delta's tokens, in
// brackets.
void AppendTokenLogprobs(const AnswerInfo& info, const std::vector<TokenInfo>& tokens,
                         std::string* out);

}  // namespace hgrn2
