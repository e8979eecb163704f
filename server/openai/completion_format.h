// Answers of /v1/completions: OpenAI's legacy shape with vLLM's additions.
#pragma once

#include <string>
#include <vector>

#include "server/openai/answer_format.h"

namespace hgrn2 {

class CompletionFormat : public AnswerFormat {
 public:
  explicit CompletionFormat(AnswerInfo info);

  std::string Whole(std::vector<ChoiceDelta> choices, const Usage& usage) override;
  void Delta(ChoiceDelta delta, const Usage& usage, std::string* out) override;
  void End(const Usage& usage, std::string* out) override;

 private:
  void AppendChoice(const ChoiceDelta& delta, int32_t index, std::string* out);
  void AppendLogprobs(const ChoiceDelta& delta, std::string* out);
  // The choices of one prompt that are shown, best first.
  std::vector<const ChoiceDelta*> Best(const std::vector<ChoiceDelta>& choices, size_t first) const;

  const AnswerInfo info_;
  const std::string head_;             // what every chunk begins with
  std::vector<int64_t> text_offsets_;  // per choice: characters so far
};

}  // namespace hgrn2
