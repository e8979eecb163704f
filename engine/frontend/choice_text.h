// The text side of one generated choice: tokens in, deltas of text out, ended by stop strings.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace hgrn2 {

// Finds stop strings in a growing text and holds back what may be the beginning of one.
// Single-threaded.
class StopStringMatcher {
 public:
  StopStringMatcher(std::vector<std::string> stops, bool include_in_output)
      : stops_(std::move(stops)), include_in_output_(include_in_output) {}

  // Text that is safe to show now. After a match, everything up to it; the rest is dropped.
  std::string Append(std::string_view text);
  // What was held back, when the text ends without a match.
  std::string Flush() { return std::exchange(held_, {}); }
  // The stop string that was found, if any.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  const std::vector<std::string> stops_;
  const bool include_in_output_;
  std::string held_;
  std::optional<std::string> matched_;
};

}  // namespace hgrn2
