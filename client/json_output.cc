#include "client/json_output.h"

namespace hgrn2::client {

using Json = nlohmann::ordered_json;

namespace {

template <typename Logprobs>
Json Array(const Logprobs& logprobs) {
  Json array = Json::array();
  for (const auto& item : logprobs) array.push_back(ToJson(item));
  return array;
}

}  // namespace

Json ToJson(const v1::TokenLogprob& logprob) {
  Json json{{"token_id", logprob.token_id()}, {"token", logprob.token()}};
  Json bytes = Json::array();
  for (const unsigned char c : logprob.token()) bytes.push_back(c);
  json["bytes"] = std::move(bytes);
  json["logprob"] = logprob.has_logprob() ? Json(logprob.logprob()) : Json(nullptr);
  json["rank"] = logprob.rank();
  if (logprob.top_size() > 0) json["top"] = Array(logprob.top());
  return json;
}

Json ToJson(const v1::ChoiceDelta& delta) {
  Json json{{"index", delta.index()}, {"text", delta.text()}};
  json["token_ids"] = delta.token_ids();
  if (delta.logprobs_size() > 0) json["logprobs"] = Array(delta.logprobs());
  if (delta.prompt_logprobs_size() > 0) json["prompt_logprobs"] = Array(delta.prompt_logprobs());
  const std::string reason = FinishReasonName(delta.finish_reason());
  json["finish_reason"] = reason.empty() ? Json(nullptr) : Json(reason);
  if (!delta.stop_reason().empty()) json["stop_reason"] = delta.stop_reason();
  return json;
}

Json ToJson(const v1::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"completion_tokens", usage.completion_tokens()},
          {"cached_tokens", usage.cached_tokens()}};
}

Json ToJson(const v1::Timing& timing) {
  return {
      {"queue_s", timing.queue()}, {"prefill_s", timing.prefill()}, {"decode_s", timing.decode()}};
}

Json ToJson(const v1::GetModelResponse& model) {
  Json json{{"name", model.name()},
            {"architecture", model.architecture()},
            {"num_parameters", model.num_parameters()},
            {"num_layers", model.num_layers()},
            {"hidden_size", model.hidden_size()},
            {"num_heads", model.num_heads()},
            {"head_dim", model.head_dim()},
            {"intermediate_size", model.intermediate_size()},
            {"vocab_size", model.vocab_size()},
            {"dtype", model.dtype()},
            {"state_dtype", model.state_dtype()},
            {"state_bytes_per_sequence", model.state_bytes_per_sequence()},
            {"max_num_seqs", model.max_num_seqs()},
            {"max_num_batched_tokens", model.max_num_batched_tokens()},
            {"max_num_queued_reqs", model.max_num_queued_reqs()},
            {"device", model.device()},
            {"model_hash", model.model_hash()}};
  json["eos_token_ids"] = model.eos_token_ids();
  json["bos_token_id"] = model.has_bos_token_id() ? Json(model.bos_token_id()) : Json(nullptr);
  json["has_tokenizer"] = model.has_tokenizer();
  json["server_version"] = model.server_version();
  return json;
}

std::string FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_ABORT:
      return "abort";
    default:
      return "";
  }
}

std::string DumpLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace hgrn2::client
