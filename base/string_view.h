// The one bridge between std::string_view and Debian's absl::string_view, which are distinct types.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/string_view.h"

namespace hgrn2 {
inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view ToStd(absl::string_view s) { return {s.data(), s.size()}; }
}  // namespace hgrn2
