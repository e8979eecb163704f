// Tests: {{ value is name(arguments) }}.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/value.h"

namespace hgrn2::chat {

using TestFunction = absl::StatusOr<bool> (*)(const Value& value, const Args& args, Budget* budget);
// Null if there is none of that name.
TestFunction FindTest(std::string_view name);

}  // namespace hgrn2::chat
