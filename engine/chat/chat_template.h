// A checkpoint's chat template: turns a conversation into the text that the model continues. The
// language is the part of Jinja2 that such templates use, with the meaning that `transformers`
// gives it (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop controls); docs/chat.md
// lists it. What lies beyond it is refused when the template is compiled.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace hgrn2 {

// A template comes with the checkpoint and its input from clients: neither may take the server
// down. Exceeding a limit is an INVALID_ARGUMENT that names it.
struct ChatTemplateOptions {
  int64_t max_source_bytes = 1 << 20;
  int64_t max_output_bytes = 8 << 20;
  int64_t max_memory_bytes = 64 << 20;  // of the values alive at once
  int64_t max_steps = 4'000'000;        // nodes evaluated and bytes copied: bounds loops and time
  int32_t max_depth = 400;              // of nested blocks, expressions, macro calls and values
  std::function<int64_t()> now;         // strftime_now's clock, seconds since 1970; null: the real
};

// Immutable and thread-safe.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT, one sentence naming `name`, the line and the construct, if `source` is not
  // valid or uses something that is not supported.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Compile(
      std::string_view source, std::string_view name, ChatTemplateOptions options = {});
  virtual ~ChatTemplate() = default;

  // The text for an object of variables: "messages", "add_generation_prompt", "bos_token" and what
  // else the template reads. INVALID_ARGUMENT with the template's own words if it calls
  // raise_exception, naming the line if it cannot be evaluated with these variables.
  virtual absl::StatusOr<std::string> Render(const nlohmann::ordered_json& variables) const = 0;
};

}  // namespace hgrn2
