// The tokens of a template as the parsers take them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/chat/lexer.h"

namespace hgrn2::chat {

class TokenStream {
 public:
  // REQUIRES: ends with a kEnd token.
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[pos_]; }
  const Token& next() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  Token Take() {
    const size_t at = pos_;
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return tokens_[at];
  }
  bool SkipName(std::string_view name) { return current().IsName(name) && Skip(); }
  bool SkipOperator(std::string_view op) { return current().IsOperator(op) && Skip(); }
  absl::Status ExpectOperator(std::string_view op) {
    return SkipOperator(op) ? absl::OkStatus() : Unexpected(fmt::format("'{}'", op));
  }
  absl::StatusOr<std::string> ExpectName() {
    if (current().type != Token::Type::kName) return Unexpected("a name");
    return Take().text;
  }
  absl::Status Unexpected(const std::string& wanted) const {
    return SyntaxError(line(), fmt::format("expected {}, found {}", wanted, Describe(current())));
  }

  static std::string Describe(const Token& token) {
    switch (token.type) {
      case Token::Type::kData:
        return "text";
      case Token::Type::kVariableBegin:
        return "'{{'";
      case Token::Type::kVariableEnd:
        return "'}}'";
      case Token::Type::kBlockBegin:
        return "'{%'";
      case Token::Type::kBlockEnd:
        return "'%}'";
      case Token::Type::kEnd:
        return "the end of the template";
      case Token::Type::kString:
        return "a string";
      default:
        return fmt::format("'{}'", token.text.substr(0, 60));
    }
  }

 private:
  bool Skip() {
    Take();
    return true;
  }

  const std::vector<Token> tokens_;
  size_t pos_ = 0;
};

}  // namespace hgrn2::chat
