// Templates to syntax trees.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/syntax_tree.h"

namespace hgrn2::chat {

// Errors say "line N: ..." and name what is not valid or not supported.
absl::StatusOr<Body> Parse(std::string_view source, int32_t max_depth);

}  // namespace hgrn2::chat
