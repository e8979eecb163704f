// Reads JSON in one pass without building anything: the load client looks at a few members of many
// small messages. Accepts some texts that are not quite JSON; never reads beyond the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace hgrn2::client {

class JsonScanner {
 public:
  explicit JsonScanner(std::string_view text) : at_(text.data()), end_(at_ + text.size()) {}

  // Every function returns false if the text is malformed or not of that kind; then the scanner is
  // of no further use.

  // Calls `member` with each name, raw between its quotes; it must consume the value.
  bool Object(absl::FunctionRef<bool(std::string_view name)> member);
  // Calls `element` at each element; it must consume it.
  bool Array(absl::FunctionRef<bool()> element);
  // The text between the quotes, escapes not undone.
  bool String(std::string_view* raw);
  // A number without fraction or exponent.
  bool Integer(int64_t* value);
  bool Number(double* value);
  // Any value.
  bool Skip();
  // First character of the next value; 0 at the end. Not consumed.
  char Peek();
  bool AtEnd() { return Peek() == 0; }

 private:
  bool Take(char c);
  bool SkipString();

  const char* at_;
  const char* end_;
  int depth_ = 0;
};

// Undoes the escapes of a string as String returns it.
std::string JsonUnescape(std::string_view raw);

}  // namespace hgrn2::client
