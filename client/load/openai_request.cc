#include "client/load/openai_request.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include <initializer_list>
#include <iterator>
#include <nlohmann/json.hpp>

namespace hgrn2::client {
namespace {

using Json = nlohmann::ordered_json;

// SamplingParams has vLLM's names, so its JSON form is the request's.
Json SamplingJson(const v1::SamplingParams& sampling) {
  google::protobuf::util::JsonPrintOptions print;
  print.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(sampling, &text, print).ok()) return {};
  Json json = Json::parse(text, nullptr, false);
  return json.is_object() ? json : Json::object();
}

void KeepOnly(std::initializer_list<const char*> names, Json* json) {
  Json kept = Json::object();
  for (const char* name : names) {
    if (json->contains(name)) kept[name] = (*json)[name];
  }
  *json = std::move(kept);
}

// Most tokenizers make one token of each of these with the space before it.
constexpr const char* kWords[] = {" the", " of",  " and", " to",  " in",   " he",  " was", " it",
                                  " his", " is",  " as",  " had", " with", " for", " on",  " be",
                                  " at",  " by",  " not", " she", " you",  " all", " but", " are",
                                  " or",  " one", " so",  " him", " they", " no",  " who", " we"};

std::string Quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

OpenAiRequest::OpenAiRequest(const OpenAiRequestOptions& options)
    : chat_(options.chat), only_openai_fields_(options.only_openai_fields) {
  Json json = SamplingJson(options.base.sampling());
  if (chat_ && json.contains("logprobs")) {
    json["top_logprobs"] = json["logprobs"];
    json["logprobs"] = true;
  }
  if (only_openai_fields_) {
    KeepOnly({"temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "stop",
              "logprobs", "top_logprobs"},
             &json);
  }
  if (!options.base.model().empty()) json["model"] = options.base.model();
  json["stream"] = true;
  json["stream_options"] = {{"include_usage", true}};
  if (!only_openai_fields_) {
    json["stream_options"]["continuous_usage_stats"] = true;
    if (options.return_token_ids) json["return_token_ids"] = true;
  }
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  fixed_ = text.substr(1, text.size() - 2) + ",";
}

void OpenAiRequest::AppendBody(const CallRequest& request, std::string* body) const {
  auto out = std::back_inserter(*body);
  body->push_back('{');
  body->append(fixed_);
  fmt::format_to(out, "\"max_tokens\":{}", request.max_tokens);
  if (request.priority != 0 && !only_openai_fields_) {
    fmt::format_to(out, ",\"priority\":{}", request.priority);
  }
  if (chat_) {
    body->append(R"(,"messages":[{"role":"user","content":)");
    std::string words;
    if (request.text == nullptr) {
      for (const int32_t id : request.prompt_ids) words += kWords[id % std::size(kWords)];
    }
    body->append(Quoted(request.text != nullptr ? *request.text : words)).append("}]}");
  } else if (request.text != nullptr) {
    body->append(",\"prompt\":").append(Quoted(*request.text)).append("}");
  } else {
    fmt::format_to(out, ",\"prompt\":[{}]}}", fmt::join(request.prompt_ids, ","));
  }
}

}  // namespace hgrn2::client
