// Short constructors for absl::Status with fmt formatting:
//   return InvalidArgument("temperature", "must be in [0, 2], got {}", t);
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "base/string_view.h"

namespace hgrn2 {

// Payload URL under which the offending field's name travels in a Status (see FieldOf).
inline constexpr const char kFieldPayload[] = "hgrn2/field";

template <typename... Args>
absl::Status MakeStatus(absl::StatusCode code, fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, ToAbsl(fmt::format(format, std::forward<Args>(args)...)));
}

// INVALID_ARGUMENT about one request field; the message begins with the field's name and the name
// is attached so that a front end can report a field violation.
template <typename... Args>
absl::Status InvalidArgument(std::string_view field, fmt::format_string<Args...> format,
                             Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  absl::Status status(absl::StatusCode::kInvalidArgument, fmt::format("{}: {}", field, text));
  status.SetPayload(kFieldPayload, absl::Cord(ToAbsl(field)));
  return status;
}

// The field attached by InvalidArgument, or "".
std::string FieldOf(const absl::Status& status);

}  // namespace hgrn2
