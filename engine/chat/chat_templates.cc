#include "engine/chat/chat_templates.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "engine/chat/text.h"
#include "engine/loader/file.h"
#include "engine/tokenizer/json_field.h"

namespace hgrn2 {

// A base model has seen dialogue as prose: names, colons, lines.
const char kPlainChatTemplate[] = R"({%- for message in messages -%}
{%- if message.role in ['system', 'developer'] -%}
{{ message.content }}{{ '\n\n' }}
{%- elif message.role in ['user', 'assistant', 'tool'] -%}
{{ message.role | capitalize }}: {{ message.content }}{{ '\n' }}
{%- else -%}
{{ raise_exception('unknown role ' ~ message.role) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
Assistant:
{%- endif -%}
)";

namespace {

using Json = nlohmann::ordered_json;
using Templates = std::map<std::string, std::unique_ptr<const ChatTemplate>>;
constexpr size_t kMaxFileBytes = 8 << 20;
constexpr size_t kMaxTemplates = 64;

absl::StatusOr<nlohmann::json> ReadJson(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kMaxFileBytes));
  ASSIGN_OR_RETURN(nlohmann::json document, ParseJson(text, path));
  RETURN_IF_ERROR(JsonField(document, path).ExpectObject());
  return document;
}

absl::Status Add(const std::string& name, const std::string& source, const std::string& where,
                 Templates* templates) {
  if (templates->size() >= kMaxTemplates) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: more than {} templates", where,
                      kMaxTemplates);
  }
  ASSIGN_OR_RETURN((*templates)[name], ChatTemplate::Compile(source, where));
  return absl::OkStatus();
}

// "chat_template": a string, or a list of {"name", "template"}.
absl::Status AddFromJson(const JsonField& field, Templates* templates) {
  const std::string where = fmt::format("{}: {}", field.file(), field.path());
  if (field.value().is_string()) {
    ASSIGN_OR_RETURN(const std::string source, field.String());
    return Add("default", source, where, templates);
  }
  RETURN_IF_ERROR(field.ExpectArray());
  for (size_t i = 0; i < field.value().size(); ++i) {
    ASSIGN_OR_RETURN(const std::string name, field.Element(i).Member("name").String());
    ASSIGN_OR_RETURN(const std::string source, field.Element(i).Member("template").String());
    RETURN_IF_ERROR(Add(name, source, fmt::format("{}[{}]", where, i), templates));
  }
  return absl::OkStatus();
}

absl::Status AddFromFile(const std::string& name, const std::string& path, Templates* templates) {
  ASSIGN_OR_RETURN(const std::string source, ReadWholeFile(path, kMaxFileBytes));
  return Add(name, source, path, templates);
}

// The named templates beside chat_template.jinja.
absl::Status AddFromFolder(const std::string& directory, Templates* templates) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::filesystem::path& path = entry.path();
    if (path.extension() != ".jinja") continue;
    RETURN_IF_ERROR(AddFromFile(path.stem().string(), path.string(), templates));
  }
  return absl::OkStatus();
}

// "bos_token" and the like: text, or an object with it.
std::map<std::string, std::string> SpecialTokens(const nlohmann::json& config) {
  std::map<std::string, std::string> tokens;
  for (const auto& [key, value] : config.items()) {
    if (!key.ends_with("_token")) continue;
    const nlohmann::json* text = &value;
    if (value.is_object() && value.contains("content")) text = &value["content"];
    if (text->is_string()) tokens[key] = text->get<std::string>();
  }
  return tokens;
}

absl::StatusOr<std::string> JoinParts(const Json& parts, const std::string& field) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Json& part = parts[i];
    const bool is_text = part.is_object() && part.contains("type") && part["type"] == "text" &&
                         part.contains("text") && part["text"].is_string();
    if (!is_text) {
      return InvalidArgument(
          "messages",
          "{}[{}] must be {{\"type\": \"text\", \"text\": ...}}: the model reads text only", field,
          i);
    }
    if (i > 0) text += '\n';
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

// As the templates expect them: text contents.
absl::StatusOr<Json> NormalizeMessages(const Json* messages) {
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    return InvalidArgument("messages", "must be a list of at least one message");
  }
  Json normal = *messages;
  for (size_t i = 0; i < normal.size(); ++i) {
    Json& message = normal[i];
    const std::string field = fmt::format("[{}]", i);
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
      return InvalidArgument("messages", "{} must be an object with a \"role\"", field);
    }
    if (!message.contains("content")) {
      message["content"] = nullptr;
    } else if (message["content"].is_array()) {
      ASSIGN_OR_RETURN(std::string text, JoinParts(message["content"], field + ".content"));
      message["content"] = std::move(text);
    } else if (!message["content"].is_string() && !message["content"].is_null()) {
      return InvalidArgument("messages", "{}.content must be text or a list of parts", field);
    }
    if (message["content"].is_null()) message["content"] = "";
  }
  return normal;
}

// Cuts the text after the last message's content, as `transformers` does it.
absl::StatusOr<std::string> CutAfterFinalMessage(std::string text, const Json& messages) {
  const std::string& content = messages.back()["content"].get_ref<const std::string&>();
  const std::string_view bare = chat::StripRight(chat::StripLeft(content));
  const std::string_view with_tail = chat::StripLeft(content);
  const size_t at = text.rfind(bare);
  if (bare.empty() || at == text.npos) {
    return InvalidArgument("continue_final_message",
                           "the template does not keep the last message's text, or it has none");
  }
  const bool keeps_tail = std::string_view(text).substr(at).starts_with(with_tail);
  text.resize(at + (keeps_tail ? with_tail.size() : bare.size()));
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ChatTemplates>> ChatTemplates::Load(
    const std::string& directory, const std::string& override_path) {
  auto result = std::unique_ptr<ChatTemplates>(new ChatTemplates);
  const std::string config_path = directory + "/tokenizer_config.json";
  nlohmann::json config = nlohmann::json::object();
  if (FileExists(config_path)) {
    ASSIGN_OR_RETURN(config, ReadJson(config_path));
  }
  result->special_tokens_ = SpecialTokens(config);
  Templates& templates = result->templates_;
  const std::string jinja = directory + "/chat_template.jinja";
  const std::string json = directory + "/chat_template.json";
  const JsonField in_config = JsonField(config, config_path).Member("chat_template");
  if (!override_path.empty()) {
    RETURN_IF_ERROR(AddFromFile("default", override_path, &templates));
    result->source_ = override_path;
  } else if (FileExists(jinja)) {
    RETURN_IF_ERROR(AddFromFile("default", jinja, &templates));
    RETURN_IF_ERROR(AddFromFolder(directory + "/additional_chat_templates", &templates));
    result->source_ = jinja;
  } else if (FileExists(json)) {
    ASSIGN_OR_RETURN(const nlohmann::json document, ReadJson(json));
    RETURN_IF_ERROR(AddFromJson(JsonField(document, json).Member("chat_template"), &templates));
    result->source_ = json;
  } else if (!in_config.is_null()) {
    RETURN_IF_ERROR(AddFromJson(in_config, &templates));
    result->source_ = config_path;
  }
  if (templates.empty()) {
    RETURN_IF_ERROR(Add("default", kPlainChatTemplate, "the plain chat template", &templates));
    result->is_plain_ = true;
    result->stop_ = {"\nUser:"};
  }
  return result;
}

absl::StatusOr<std::string> ChatTemplates::Render(const ChatRenderRequest& request) const {
  const bool has_tools = request.tools != nullptr && !request.tools->is_null();
  std::string name = request.template_name;
  if (name.empty()) name = has_tools && templates_.contains("tool_use") ? "tool_use" : "default";
  const auto found = templates_.find(name);
  if (found == templates_.end()) {
    std::string names;
    for (const auto& [known, _] : templates_) names += (names.empty() ? "" : ", ") + known;
    return InvalidArgument("chat_template", "there is no template of that name; the model has: {}",
                           names);
  }
  if (request.continue_final_message && request.add_generation_prompt) {
    return InvalidArgument("continue_final_message", "excludes add_generation_prompt");
  }
  ASSIGN_OR_RETURN(const Json messages, NormalizeMessages(request.messages));
  Json variables = Json::object();
  for (const auto& [key, token] : special_tokens_) variables[key] = token;
  if (request.kwargs != nullptr && !request.kwargs->is_null()) {
    if (!request.kwargs->is_object())
      return InvalidArgument("chat_template_kwargs", "must be an object");
    for (const auto& [key, value] : request.kwargs->items()) {
      if (key == "messages" || key == "tools") {
        return InvalidArgument("chat_template_kwargs", "must not set \"{}\"", key);
      }
      variables[key] = value;
    }
  }
  variables["messages"] = messages;
  variables["tools"] = has_tools ? *request.tools : Json();
  if (!variables.contains("documents")) variables["documents"] = nullptr;
  variables["add_generation_prompt"] = request.add_generation_prompt;
  absl::StatusOr<std::string> text = found->second->Render(variables);
  if (!text.ok()) return InvalidArgument("messages", "{}", ToStd(text.status().message()));
  if (!request.continue_final_message) return text;
  return CutAfterFinalMessage(*std::move(text), messages);
}

}  // namespace hgrn2
