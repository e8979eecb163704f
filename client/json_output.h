// Messages of the API as JSON. Token bytes that are not whole UTF-8 appear with U+FFFD in "token"
// and exactly in "bytes".
#pragma once

#include <hgrn2/v1/inference.pb.h>

#include <nlohmann/json.hpp>
#include <string>

namespace hgrn2::client {

nlohmann::ordered_json ToJson(const v1::TokenLogprob& logprob);
nlohmann::ordered_json ToJson(const v1::ChoiceDelta& delta);
nlohmann::ordered_json ToJson(const v1::Usage& usage);
nlohmann::ordered_json ToJson(const v1::Timing& timing);
nlohmann::ordered_json ToJson(const v1::GetModelResponse& model);

// "stop", "length", "abort"; empty while unfinished.
std::string FinishReasonName(v1::FinishReason reason);

// One line, invalid UTF-8 replaced.
std::string DumpLine(const nlohmann::ordered_json& json);

}  // namespace hgrn2::client
