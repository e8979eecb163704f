// Any bytes as a chat template, rendered with a conversation that has something of everything:
// refused, or a text in valid UTF-8 within the limits. The part after the first zero byte, if it is
// JSON, is the variables instead.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/chat/chat_template.h"
#include "engine/tokenizer/unicode.h"

namespace {

constexpr char kVariables[] =
    R"({"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true,
  "messages": [{"role": "system", "content": "S\u00e9 "}, {"role": "user", "content": "a\nb"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdef123", "function": {"name": "f",
      "arguments": {"x": 1, "y": [1.5, null, true]}}}]}, {"role": "tool", "content": "{}"}],
  "tools": [{"type": "function", "function": {"name": "f", "description": "d",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}],
  "x_list": [1, "a", null], "x_dict": {"z": 1, "a": {"b": "c"}}, "x_text": "text"})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const kDefault = new auto(nlohmann::ordered_json::parse(kVariables));
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  hgrn2::ChatTemplateOptions options;
  options.max_source_bytes = 1 << 16;
  options.max_output_bytes = 1 << 18;
  options.max_memory_bytes = 1 << 22;
  options.max_steps = 100'000;
  options.now = [] { return int64_t{1721988000}; };
  const auto compiled = hgrn2::ChatTemplate::Compile(input.substr(0, zero), "fuzz", options);
  if (!compiled.ok()) return 0;
  nlohmann::ordered_json variables = *kDefault;
  if (zero != input.npos) {
    const std::string_view json = input.substr(zero + 1);
    auto own = nlohmann::ordered_json::parse(json.begin(), json.end(), nullptr, false);
    if (own.is_object()) variables = std::move(own);
  }
  const auto text = (*compiled)->Render(variables);
  if (!text.ok()) return 0;
  if (text->size() > 1 << 18 || !hgrn2::unicode::IsValid(*text)) std::abort();
  // The same again: rendering leaves nothing behind.
  const auto again = (*compiled)->Render(variables);
  if (!again.ok() || *again != *text) std::abort();
  return 0;
}
