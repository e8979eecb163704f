// Methods of texts, dicts and lists.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/value.h"

namespace hgrn2::chat {

// Whether values of this type have a method of that name that templates may call.
bool HasMethod(const Value& value, std::string_view name);
// Whether Python has it on some type, but templates may not call it or it is not supported here.
bool IsRefusedMethod(std::string_view name);
// REQUIRES: HasMethod.
absl::StatusOr<Value> CallMethod(const Value& value, std::string_view name, const Args& args,
                                 Budget* budget);

}  // namespace hgrn2::chat
