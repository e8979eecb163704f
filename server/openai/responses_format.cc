#include "server/openai/responses_format.h"

#include <fmt/format.h>

#include <iterator>
#include <optional>
#include <utility>

#include "server/openai/chat_format.h"
#include "server/openai/json_output.h"

namespace hgrn2 {
namespace {

constexpr size_t kMaxRepeatedLogprobs = 16384;

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(text, &out);
  return out;
}

template <typename T>
std::string OrNull(const std::optional<T>& value) {
  return value.has_value() ? fmt::format("{}", *value) : "null";
}

std::string Echoed(const ResponsesBody& body) {
  const SamplingRequest& sampling = body.request.sampling;
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? std::string("null") : Quoted(text);
  };
  return fmt::format(
      "\"instructions\":{},\"max_output_tokens\":{},\"previous_response_id\":{},\"store\":{},"
      "\"temperature\":{},\"top_p\":{},\"user\":{},\"metadata\":{},\"parallel_tool_calls\":false,"
      "\"tool_choice\":\"none\",\"tools\":[],\"truncation\":\"disabled\",\"reasoning\":null,"
      "\"text\":{{\"format\":{{\"type\":\"text\"}}}}",
      text_or_null(body.instructions), OrNull(sampling.max_tokens),
      text_or_null(body.previous_response_id), body.store, OrNull(sampling.temperature),
      OrNull(sampling.top_p), text_or_null(body.request.user), body.metadata.dump());
}

}  // namespace

ResponsesFormat::ResponsesFormat(AnswerInfo info, const ResponsesBody& body, OnComplete on_complete)
    : info_(std::move(info)),
      on_complete_(std::move(on_complete)),
      item_id_("msg_" + info_.id.substr(info_.id.find('_') + 1)),
      echoed_(Echoed(body)) {}

const char* ResponsesFormat::Status() const {
  return answer_.finish_reason == FinishReason::kStop ? "completed" : "incomplete";
}

std::string ResponsesFormat::Logprobs(const std::vector<TokenInfo>& tokens) const {
  std::string out;
  if (info_.logprobs < 0) return "[]";
  AppendTokenLogprobs(info_, tokens, &out);
  return out;
}

std::string ResponsesFormat::Part() const {
  return fmt::format("{{\"type\":\"output_text\",\"text\":{},\"annotations\":[],\"logprobs\":{}}}",
                     Quoted(answer_.text), Logprobs(answer_.logprobs));
}

std::string ResponsesFormat::Item(const char* status) const {
  const bool begun = std::string_view(status) != "in_progress";
  return fmt::format(
      "{{\"id\":{},\"type\":\"message\",\"status\":\"{}\",\"role\":\"assistant\",\"content\":[{}]}"
      "}",
      Quoted(item_id_), status, begun ? Part() : "");
}

std::string ResponsesFormat::Response(const char* status, const Usage* usage) const {
  const std::string_view s = status;
  std::string usage_text = "null";
  if (usage != nullptr) {
    usage_text = fmt::format(
        "{{\"input_tokens\":{},\"input_tokens_details\":{{\"cached_tokens\":{}}},"
        "\"output_tokens\":{},\"output_tokens_details\":{{\"reasoning_tokens\":0}},"
        "\"total_tokens\":{}}}",
        usage->prompt_tokens, usage->cached_tokens, usage->completion_tokens,
        usage->prompt_tokens + usage->completion_tokens);
  }
  return fmt::format(
      "{{\"id\":{},\"object\":\"response\",\"created_at\":{},\"status\":\"{}\",\"error\":null,"
      "\"incomplete_details\":{},\"model\":{},\"output\":[{}],{},\"usage\":{}}}",
      Quoted(info_.id), info_.created, s,
      s == "incomplete" ? "{\"reason\":\"max_output_tokens\"}" : "null", Quoted(info_.model),
      s == "in_progress" ? "" : Item(status), echoed_, usage_text);
}

std::string ResponsesFormat::Whole(std::vector<ChoiceDelta> choices, const Usage& usage) {
  if (!choices.empty()) answer_ = std::move(choices[0]);
  std::string response = Response(Status(), &usage);
  on_complete_(answer_.text, response);
  return response + "\n";
}

void ResponsesFormat::AppendEvent(const char* type, const std::string& members, std::string* out) {
  fmt::format_to(std::back_inserter(*out),
                 "event: {}\ndata: {{\"type\":\"{}\",\"sequence_number\":{},{}}}\n\n", type, type,
                 sequence_number_++, members);
}

void ResponsesFormat::Begin(std::string* out) {
  const std::string response = "\"response\":" + Response("in_progress", nullptr);
  AppendEvent("response.created", response, out);
  AppendEvent("response.in_progress", response, out);
  AppendEvent("response.output_item.added", "\"output_index\":0,\"item\":" + Item("in_progress"),
              out);
  AppendEvent("response.content_part.added",
              fmt::format("\"item_id\":{},\"output_index\":0,\"content_index\":0,\"part\":{}",
                          Quoted(item_id_), Part()),
              out);
}

void ResponsesFormat::Delta(ChoiceDelta delta, const Usage&, std::string* out) {
  if (!delta.text.empty() || !delta.logprobs.empty()) {
    AppendEvent("response.output_text.delta",
                fmt::format("\"item_id\":{},\"output_index\":0,\"content_index\":0,\"delta\":{},"
                            "\"logprobs\":{}",
                            Quoted(item_id_), Quoted(delta.text), Logprobs(delta.logprobs)),
                out);
  }
  // The last events repeat the answer; of log-probabilities only what memory can be spared for.
  if (answer_.logprobs.size() > kMaxRepeatedLogprobs) delta.logprobs.clear();
  MergeDelta(std::move(delta), &answer_);
}

void ResponsesFormat::End(const Usage& usage, std::string* out) {
  const std::string place =
      fmt::format("\"item_id\":{},\"output_index\":0,\"content_index\":0,", Quoted(item_id_));
  AppendEvent("response.output_text.done",
              fmt::format("{}\"text\":{},\"logprobs\":{}", place, Quoted(answer_.text),
                          Logprobs(answer_.logprobs)),
              out);
  AppendEvent("response.content_part.done", place + "\"part\":" + Part(), out);
  AppendEvent("response.output_item.done", "\"output_index\":0,\"item\":" + Item(Status()), out);
  const std::string response = Response(Status(), &usage);
  on_complete_(answer_.text, response);
  AppendEvent(
      answer_.finish_reason == FinishReason::kStop ? "response.completed" : "response.incomplete",
      "\"response\":" + response, out);
}

void ResponsesFormat::Fail(const std::string& error, std::string* out) {
  const Json parsed = Json::parse(error, nullptr, /*allow_exceptions=*/false);
  const Json inner = parsed.is_object() ? parsed.value("error", Json::object()) : Json::object();
  AppendEvent(
      "error",
      fmt::format("\"code\":{},\"message\":{},\"param\":{}", inner.value("code", Json()).dump(),
                  inner.value("message", Json()).dump(), inner.value("param", Json()).dump()),
      out);
}

}  // namespace hgrn2
