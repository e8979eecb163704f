// Strict parsing of the JSON files of a checkpoint directory. Private to engine/loader.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/statusor.h"

namespace hgrn2 {

struct JsonLimits {
  size_t max_bytes;
  int max_depth;
};

// The object in `text`. INVALID_ARGUMENT, one sentence naming `file`, for text over the limits, bad
// JSON, a key that occurs twice in one object (readers disagree on which one counts), and a top
// level that is no object. Memory is proportional to the text, whatever is in it.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view file,
                                               const JsonLimits& limits);

}  // namespace hgrn2
