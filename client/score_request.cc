#include "client/score_request.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace hgrn2::client {
namespace {

using Json = nlohmann::json;

absl::Status ParsePrompt(const Json& json, const std::string& key, v1::Prompt* prompt) {
  if (json.is_string()) {
    prompt->set_text(json.get<std::string>());
    return absl::OkStatus();
  }
  if (!json.is_array()) {
    return absl::InvalidArgumentError(key + ": must be a string or an array of token ids");
  }
  auto* ids = prompt->mutable_tokens()->mutable_ids();
  ids->Reserve(static_cast<int>(json.size()));
  for (const Json& id : json) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(fmt::format("{}: '{}' is not a token id", key, id.dump()));
    }
    ids->Add(id.get<int32_t>());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ScoreRequest> ParseScoreLine(const std::string& line,
                                                const v1::ScoreRequest& base) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  v1::ScoreRequest request = base;
  if (const auto context = json.find("context"); context != json.end() && !context->is_null()) {
    absl::Status status = ParsePrompt(*context, "context", request.mutable_context());
    if (!status.ok()) return status;
  }
  const auto continuations = json.find("continuations");
  if (continuations == json.end() || !continuations->is_array() || continuations->empty()) {
    return absl::InvalidArgumentError("continuations: must be a non-empty array");
  }
  for (size_t i = 0; i < continuations->size(); ++i) {
    absl::Status status = ParsePrompt((*continuations)[i], fmt::format("continuations[{}]", i),
                                      request.add_continuations());
    if (!status.ok()) return status;
  }
  if (const auto id = json.find("id"); id != json.end()) {
    request.set_request_id(id->is_string() ? id->get<std::string>() : id->dump());
  }
  return request;
}

}  // namespace hgrn2::client
