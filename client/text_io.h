// Text in and out of the terminal and files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2::client {

// Whole contents; "-" is standard input.
absl::StatusOr<std::string> ReadFile(const std::string& path);
absl::Status WriteFile(const std::string& path, std::string_view contents);

// "1,2 3" -> {1, 2, 3}: comma- or space-separated token ids.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(std::string_view text);

// Control characters other than newline and tab become visible (^[ for ESC), so that generated text
// can't drive the reader's terminal.
std::string EscapeControls(std::string_view text);

// Writes to stdout, escaping controls if stdout is a terminal, and flushes.
void PrintGenerated(std::string_view text);

}  // namespace hgrn2::client
