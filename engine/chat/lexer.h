// Template source to tokens, with Jinja2's rules for white space: trim_blocks, lstrip_blocks, "-"
// and
// "+" signs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2::chat {

struct Token {
  enum class Type {
    kData,
    kVariableBegin,
    kVariableEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Type type = Type::kEnd;
  int line = 1;
  std::string text;  // a string's value, a name, an operator, data
  int64_t integer = 0;
  double number = 0;

  bool IsName(std::string_view name) const { return type == Type::kName && text == name; }
  bool IsOperator(std::string_view op) const { return type == Type::kOperator && text == op; }
};

// Ends with a kEnd token. Errors say "line N: ...". `source` must be valid UTF-8.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// "line N: ..."
absl::Status SyntaxError(int line, std::string_view message);

}  // namespace hgrn2::chat
