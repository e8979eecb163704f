// How the loader's tests look at a status.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/string_view.h"

namespace hgrn2 {

inline std::string Message(const absl::Status& status) {
  return std::string(ToStd(status.message()));
}
template <typename T>
std::string Message(const absl::StatusOr<T>& result) {
  return Message(result.status());
}

// One sentence: what a user sees on one line of a log.
inline ::testing::AssertionResult IsOneSentence(const std::string& message) {
  if (message.empty() || message.size() > 600) {
    return ::testing::AssertionFailure() << "a message of " << message.size() << " bytes";
  }
  for (const char c : message) {
    if (c < 0x20 || c > 0x7e) return ::testing::AssertionFailure() << "unprintable: " << message;
  }
  return ::testing::AssertionSuccess();
}

}  // namespace hgrn2
