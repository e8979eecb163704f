// The chat templates of one checkpoint directory and the variables that go with them.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat/chat_template.h"

namespace hgrn2 {

// For checkpoints without a template (base models): see docs/chat.md.
extern const char kPlainChatTemplate[];

// One chat request. The JSON values outlive the call.
struct ChatRenderRequest {
  // An array of objects with "role" and "content" (text, null, or a list of {"type": "text"}).
  const nlohmann::ordered_json* messages = nullptr;
  bool add_generation_prompt = true;
  // The answer begins with the last message, which is rendered without its end.
  bool continue_final_message = false;
  const nlohmann::ordered_json* tools = nullptr;   // an array, or null
  const nlohmann::ordered_json* kwargs = nullptr;  // chat_template_kwargs: an object, or null
  std::string template_name;  // of several: "" takes "tool_use" if there are tools, else "default"
};

// Immutable and thread-safe.
class ChatTemplates {
 public:
  // chat_template.jinja, else chat_template.json, else "chat_template" of tokenizer_config.json (a
  // string, or a list of {"name", "template"}), else the plain template. `override_path`, if not
  // empty, is a file to use instead. Special tokens come from tokenizer_config.json. An error names
  // file and line; it is the caller's choice to serve without chat then.
  static absl::StatusOr<std::unique_ptr<const ChatTemplates>> Load(
      const std::string& directory, const std::string& override_path = "");

  // INVALID_ARGUMENT about "messages", "tools", "chat_template_kwargs" or "chat_template".
  absl::StatusOr<std::string> Render(const ChatRenderRequest& request) const;

  // Whether the checkpoint brought no template of its own.
  bool is_plain() const { return is_plain_; }
  // Whether to tokenize the rendered text with the tokenizer's own special tokens: only the plain
  // template leaves those to it.
  bool add_special_tokens() const { return is_plain_; }
  // What ends the assistant's turn beside the end-of-sequence token: the plain template's next
  // turn. To be added to the request's stop strings.
  const std::vector<std::string>& stop() const { return stop_; }
  // File the template came from, for logs; "" if plain.
  const std::string& source() const { return source_; }

 private:
  ChatTemplates() = default;
  std::map<std::string, std::unique_ptr<const ChatTemplate>> templates_;
  std::map<std::string, std::string> special_tokens_;  // "bos_token": "<s>"
  std::vector<std::string> stop_;
  std::string source_;
  bool is_plain_ = false;
};

}  // namespace hgrn2
