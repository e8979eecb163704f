#include "engine/chat/chat_template.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "engine/chat/interpreter.h"
#include "engine/chat/json_values.h"
#include "engine/chat/parser.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

class CompiledTemplate final : public ChatTemplate {
 public:
  CompiledTemplate(chat::Body body, std::string_view name, ChatTemplateOptions options)
      : body_(std::move(body)), name_(name), options_(std::move(options)) {}

  absl::StatusOr<std::string> Render(const nlohmann::ordered_json& variables) const override {
    chat::Budget budget(options_);
    ASSIGN_OR_RETURN(const chat::Value root, chat::FromJson(variables, &budget));
    if (root.dict() == nullptr)
      return absl::InvalidArgumentError("the variables must be an object");
    chat::Interpreter interpreter(root, &budget);
    absl::StatusOr<std::string> text = interpreter.Run(body_);
    if (text.ok() || text.status().GetPayload(chat::kRaisedPayload).has_value()) return text;
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}, line {}: {}", name_,
                      interpreter.line(), ToStd(text.status().message()));
  }

 private:
  const chat::Body body_;
  const std::string name_;
  const ChatTemplateOptions options_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Compile(
    std::string_view source, std::string_view name, ChatTemplateOptions options) {
  if (static_cast<int64_t>(source.size()) > options.max_source_bytes) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: {} bytes, the limit is {}", name,
                      source.size(), options.max_source_bytes);
  }
  if (!unicode::IsValid(source)) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: not valid UTF-8", name);
  }
  absl::StatusOr<chat::Body> body = chat::Parse(source, options.max_depth);
  if (!body.ok()) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}, {}", name,
                      ToStd(body.status().message()));
  }
  return std::make_unique<CompiledTemplate>(*std::move(body), name, std::move(options));
}

}  // namespace hgrn2
