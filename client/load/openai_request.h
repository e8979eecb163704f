// The body of a streaming request to /v1/completions or /v1/chat/completions.
#pragma once

#include <hgrn2/v1/inference.pb.h>

#include <string>

#include "client/load/transport.h"

namespace hgrn2::client {

struct OpenAiRequestOptions {
  v1::GenerateRequest base;  // model and sampling of every request
  bool chat = false;
  // Only what OpenAI's own API defines, for servers that refuse the additions of vLLM: no
  // ignore_eos, top_k, priority, running usage.
  bool only_openai_fields = false;
  bool return_token_ids = false;  // vLLM's, for conversations of several turns
};

class OpenAiRequest {
 public:
  explicit OpenAiRequest(const OpenAiRequestOptions& options);

  // Appends the JSON text. A chat has one message; token ids become as many short words.
  void AppendBody(const CallRequest& request, std::string* body) const;

 private:
  const bool chat_;
  const bool only_openai_fields_;
  std::string fixed_;  // members that are the same in every request, each followed by a comma
};

}  // namespace hgrn2::client
