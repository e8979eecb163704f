// printf-style formatting ("%s" % x) and str.format, as far as templates use them.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/value.h"

namespace hgrn2::chat {

// `arguments` is a tuple, a dict for "%(name)s", or one value.
absl::StatusOr<std::string> PercentFormat(std::string_view format, const Value& arguments,
                                          Budget* budget);
// Fields {}, {0} and {name}, with !s and !r; no format specifications.
absl::StatusOr<std::string> BraceFormat(std::string_view format, const Args& args, Budget* budget);
// time.strftime of local time.
absl::StatusOr<std::string> FormatTime(const std::string& format, int64_t seconds);

}  // namespace hgrn2::chat
