// Answers of /v1/responses.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "server/openai/answer_format.h"
#include "server/openai/responses_body.h"

namespace hgrn2 {

class ResponsesFormat : public AnswerFormat {
 public:
  // `on_complete` is given the answer's text and the whole response, once it is complete.
  using OnComplete = std::function<void(const std::string& text, const std::string& response)>;
  ResponsesFormat(AnswerInfo info, const ResponsesBody& body, OnComplete on_complete);

  std::string Whole(std::vector<ChoiceDelta> choices, const Usage& usage) override;
  void Begin(std::string* out) override;
  void Delta(ChoiceDelta delta, const Usage& usage, std::string* out) override;
  void End(const Usage& usage, std::string* out) override;
  void Fail(const std::string& error, std::string* out) override;

 private:
  // The response's object, with its output from `answer_` on once it has a status other than
  // in_progress.
  std::string Response(const char* status, const Usage* usage) const;
  std::string Item(const char* status) const;
  std::string Part() const;
  std::string Logprobs(const std::vector<TokenInfo>& tokens) const;
  const char* Status() const;
  // "event: TYPE\ndata: {"type": TYPE, "sequence_number": N, MEMBERS}".
  void AppendEvent(const char* type, const std::string& members, std::string* out);

  const AnswerInfo info_;
  const OnComplete on_complete_;
  const std::string item_id_;
  std::string echoed_;  // members that repeat the request
  ChoiceDelta answer_;  // so far
  int64_t sequence_number_ = 0;
};

}  // namespace hgrn2
