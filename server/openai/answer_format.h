// How an answer looks on the wire: one implementation per endpoint, one object per request.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/frontend/frontend.h"
#include "server/openai/generation_body.h"

namespace hgrn2 {

// What all formats need to know of the request and its surroundings.
struct AnswerInfo {
  std::string id;  // with the endpoint's prefix: "cmpl-0123"
  std::string model;
  int64_t created = 0;                   // seconds since 1970
  const Tokenizer* tokenizer = nullptr;  // may be null; outlives the answer
  int32_t num_choices = 1;               // generated per prompt
  int32_t num_shown = 1;                 // of those; fewer with best_of
  int32_t logprobs = -1;                 // alternatives per token; -1: none
  int32_t prompt_logprobs = -1;
  std::vector<std::string> stop;
  bool echo = false;
  bool prompt_only = false;
  bool skip_special_tokens = true;
  bool include_usage = false;
  bool continuous_usage = false;
  bool return_token_ids = false;
  bool tokens_as_ids = false;
  std::vector<std::vector<int32_t>> prompt_ids;  // if token ids or continuous usage are asked for
};

AnswerInfo MakeAnswerInfo(const GenerationBody& body, std::string id, const Frontend& frontend,
                          int64_t created);

// Not thread-safe.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // The whole answer; `choices` by index, each merged from all its deltas.
  virtual std::string Whole(std::vector<ChoiceDelta> choices, const Usage& usage) = 0;

  // Server-sent events, appended to `out`. Before the first delta.
  virtual void Begin(std::string* out) {}
  // One choice's news, possibly merged from several deltas. `usage` so far.
  virtual void Delta(ChoiceDelta delta, const Usage& usage, std::string* out) = 0;
  virtual void End(const Usage& usage, std::string* out) = 0;
  // The last event of an answer that failed after its beginning; `error` is an error's JSON body.
  virtual void Fail(const std::string& error, std::string* out);
};

// Appends `delta` to `into`, which is of the same choice.
void MergeDelta(ChoiceDelta delta, ChoiceDelta* into);

// {"prompt_tokens": ..., "completion_tokens": ..., "total_tokens": ..., "prompt_tokens_details"}
void AppendUsage(const Usage& usage, std::string* out);
// The end of a stream of chunks that begin with `head`: the usage, if asked for, and [DONE].
void AppendStreamEnd(const AnswerInfo& info, const std::string& head, const Usage& usage,
                     std::string* out);
// "stop", "length" or "abort" in quotes, or null.
void AppendFinishReason(const ChoiceDelta& delta, std::string* out);
// The stop text, the stop token's number, or null.
void AppendStopReason(const AnswerInfo& info, const ChoiceDelta& delta, std::string* out);
void AppendTokenIds(const std::vector<int32_t>& ids, std::string* out);
// vLLM's: a list of null or {"id": {"logprob", "rank", "decoded_token"}}.
void AppendPromptLogprobs(const AnswerInfo& info, const std::vector<TokenInfo>& tokens,
                          std::string* out);
// A token as text: its bytes, "bytes:\xe2\x80" if they are no whole characters, or "token_id:N".
std::string TokenText(const AnswerInfo& info, int32_t id, const std::string& bytes);

}  // namespace hgrn2
