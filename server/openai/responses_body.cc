#include "server/openai/responses_body.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "engine/frontend/validate.h"

namespace hgrn2 {
namespace {

using Body = ResponsesBody;

template <auto Member>
absl::Status Read(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &(body->*Member));
}
template <absl::Status (*Reader)(const Json&, std::string_view, GenerationBody*)>
absl::Status Common(const Json& value, std::string_view field, Body* body) {
  return Reader(value, field, body);
}

template <auto Member>
absl::Status Sampling(const Json& value, std::string_view field, Body* body) {
  return ReadValue(value, field, &(body->request.sampling.*Member));
}

// input_text and output_text parts, in the words of a conversation.
Json ToTextParts(const Json& content) {
  if (!content.is_array()) return content;
  Json parts = Json::array();
  for (const Json& part : content) {
    const bool is_text = part.is_object() && part.contains("text") && part.contains("type") &&
                         (part["type"] == "input_text" || part["type"] == "output_text");
    parts.push_back(is_text ? Json({{"type", "text"}, {"text", part["text"]}}) : part);
  }
  return parts;
}

absl::Status ReadInput(const Json& value, std::string_view field, Body* body) {
  if (value.is_string()) {
    body->input.push_back({{"role", "user"}, {"content", value}});
    return absl::OkStatus();
  }
  if (!value.is_array()) return InvalidArgument(field, "must be text or a list of messages");
  Json messages = Json::array();
  for (size_t i = 0; i < value.size(); ++i) {
    const Json& item = value[i];
    const std::string name = fmt::format("{}[{}]", field, i);
    if (!item.is_object()) return InvalidArgument(name, "must be an object");
    Json message = Json::object();
    for (const auto& [key, member] : item.get_ref<const Json::object_t&>()) {
      if (key == "type") {
        if (member != "message") return InvalidArgument(name + ".type", "only messages are read");
      } else if (key != "id" && key != "status") {  // of answers that clients send back
        message[key] = key == "content" ? ToTextParts(member) : member;
      }
    }
    messages.push_back(std::move(message));
  }
  return ReadMessages(messages, field, &body->input);
}

absl::Status ReadInclude(const Json& value, std::string_view field, Body* body) {
  std::vector<std::string> names;
  RETURN_IF_ERROR(ReadValue(value, field, &names));
  for (const std::string& name : names) {
    if (name != "message.output_text.logprobs") {
      return InvalidArgument(field, "only message.output_text.logprobs can be included");
    }
    body->logprobs = true;
  }
  return absl::OkStatus();
}

absl::Status ReadText(const Json& value, std::string_view field, Body* body) {
  if (!value.is_object()) return InvalidArgument(field, "must be an object");
  for (const auto& [key, member] : value.get_ref<const Json::object_t&>()) {
    if (key == "format" && !member.is_null()) {
      RETURN_IF_ERROR(OnlyTextFormat(member, "text.format", body));
    } else if (key != "format" && !(member.is_null() || member == "medium")) {
      return InvalidArgument(fmt::format("{}.{}", field, key.substr(0, 64)), "is not supported");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadTopLogprobs(const Json& value, std::string_view field, Body* body) {
  RETURN_IF_ERROR(ReadValue(value, field, &body->top_logprobs));
  if (body->top_logprobs >= 0 && body->top_logprobs <= kMaxLogprobs) return absl::OkStatus();
  return InvalidArgument(field, "must be in [0, {}], got {}", kMaxLogprobs, body->top_logprobs);
}

absl::Status Refuse(const Json&, std::string_view field, Body*) {
  return InvalidArgument(field, "is not supported");
}

template <typename Table>
Table Without(const Table& table, std::initializer_list<std::string_view> names) {
  Table out;
  for (const auto& field : table) {
    if (std::find(names.begin(), names.end(), field.name) == names.end()) out.push_back(field);
  }
  return out;
}

}  // namespace

const std::vector<Field<GenerationBody>>& ResponsesSamplingFields() {
  static const auto fields = Without(SamplingFields(), {"n", "prompt_logprobs"});
  return fields;
}

const std::vector<Field<GenerationBody>>& ResponsesServingFields() {
  static const auto fields = Without(
      ServingFields(), {"stream_options", "return_token_ids", "metadata", "store",
                        "use_beam_search", "length_penalty", "early_stopping",
                        "spaces_between_special_tokens", "detokenize", "logits_processors"});
  return fields;
}

const std::vector<Field<ResponsesBody>>& ResponsesFields() {
  static const std::vector<Field<ResponsesBody>> fields = {
      {"input", R"({"type":["string","array"],"items":{"type":"object"}})",
       "Text, or a list of messages whose contents are texts or input_text and output_text parts.",
       ReadInput, R"("Hello")", true},
      {"instructions", R"({"type":"string"})",
       "A system message in front of the conversation, for this response alone.",
       Read<&Body::instructions>, R"("Be brief.")"},
      {"max_output_tokens", R"({"type":"integer","minimum":1,"maximum":1048576})",
       "Most tokens to generate. Default: --chat-max-tokens.",
       Sampling<&SamplingRequest::max_tokens>, "4"},
      {"previous_response_id", R"({"type":"string"})",
       "Go on after this stored response: its whole conversation is prompted again. Responses are "
       "kept in this process's memory, the least recently used go first "
       "(--response-store-bytes).",
       Read<&Body::previous_response_id>, nullptr},
      {"store", R"({"type":"boolean","default":true})",
       "Keep the response for previous_response_id and GET.", Read<&Body::store>, "true"},
      {"metadata", R"({"type":"object"})", "Returned with the response.", Read<&Body::metadata>,
       R"({"a":"b"})"},
      {"include", R"({"type":"array","items":{"const":"message.output_text.logprobs"}})",
       "message.output_text.logprobs: the log-probabilities of the answer's tokens.", ReadInclude,
       R"(["message.output_text.logprobs"])"},
      {"top_logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
       "Alternatives per token in these.", ReadTopLogprobs, "2"},
      {"text", R"({"type":"object","properties":{"format":{"type":"object"}}})",
       "Only the format {\"type\": \"text\"}.", ReadText, R"({"format":{"type":"text"}})"},
      // Accepted without effect, or only where they ask for nothing.
      {"parallel_tool_calls", R"({"type":"boolean"})", "Accepted, without effect.",
       Common<IgnoreValue>, "false"},
      {"truncation", R"({"enum":["disabled","auto"]})",
       "Accepted: there is no window to truncate to.", Common<OnlyNeutralText>, R"("disabled")"},
      {"background", R"({"const":false})", "Not supported.", Common<OnlyFalse>, "false"},
      {"tools", R"({"type":"array","maxItems":0})", "Not supported.", Common<OnlyEmpty>, "[]"},
      {"tool_choice", R"({"enum":["none","auto"]})", "Not supported.", Common<OnlyNeutralText>,
       R"("none")"},
      {"reasoning", R"({"type":"object","maxProperties":0})", "Not supported.", Common<OnlyEmpty>,
       "{}"},
      {"conversation", R"({"type":"null"})", "Not supported.", Refuse, "null"},
      {"prompt", R"({"type":"null"})", "Not supported.", Refuse, "null"},
      {"max_tool_calls", R"({"type":"null"})", "Not supported.", Refuse, "null"},
  };
  return fields;
}

absl::StatusOr<ResponsesBody> ParseResponsesBody(const Json& object) {
  ResponsesBody body;
  RETURN_IF_ERROR(ReadFields(object, &body, ResponsesFields(), ResponsesSamplingFields(),
                             ResponsesServingFields()));
  if (body.logprobs) body.request.sampling.logprobs = body.top_logprobs;
  return body;
}

}  // namespace hgrn2
