// One line of `score --input` to a request.
#pragma once

#include <hgrn2/v1/inference.pb.h>

#include <string>

#include "absl/status/statusor.h"

namespace hgrn2::client {

// `line` is {"context": text | [ids], "continuations": [text | [ids], ...], "id": text}; context
// and id may be absent. Fields the line does not name are taken from `base`. Errors name the key.
absl::StatusOr<v1::ScoreRequest> ParseScoreLine(const std::string& line,
                                                const v1::ScoreRequest& base);

}  // namespace hgrn2::client
