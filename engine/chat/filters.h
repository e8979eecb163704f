// Filters: {{ value | name(arguments) }}.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/value.h"

namespace hgrn2::chat {

using FilterFunction = absl::StatusOr<Value> (*)(const Value& value, const Args& args,
                                                 Budget* budget);
// Null if there is none of that name.
FilterFunction FindFilter(std::string_view name);

// FindFilter's parts.
FilterFunction FindSequenceFilter(std::string_view name);
// value.a.b.0, as the filters' `attribute` names it.
absl::StatusOr<Value> GetPath(const Value& value, const Value& path, Budget* budget);

}  // namespace hgrn2::chat
