// Expressions, with Jinja2's grammar and precedence.
#pragma once

#include <map>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "engine/chat/syntax_tree.h"
#include "engine/chat/token_stream.h"

namespace hgrn2::chat {

class ExpressionParser {
 public:
  // Both outlive the parser. Nothing may nest deeper than `max_depth`.
  ExpressionParser(TokenStream* tokens, int32_t max_depth) : in_(*tokens), max_depth_(max_depth) {}

  using Result = absl::StatusOr<ExpressionPtr>;
  // a if b else c
  Result Parse();
  // a, b, c: a tuple if there is a comma. Without inline if where a tag has its own.
  Result ParseTuple(bool allow_conditional);
  Result ParseOr();
  // The filters after a block: "| a | b" or, with `first_is_bare`, "a | b".
  Result ParseBlockFilters(bool first_is_bare);

  // Where each name is read, and which ones are called or tested for being defined.
  const std::map<std::string, int>& used() const { return used_; }
  const std::map<std::string, int>& called() const { return called_; }
  const std::set<std::string>& probed() const { return probed_; }

 private:
  class Nested;
  using Kind = Expression::Kind;

  ExpressionPtr New(Kind kind, int line) const;
  // Sets the depth from the children.
  Result Finish(ExpressionPtr node);
  Result Binary(Kind kind, std::string op, ExpressionPtr left, ExpressionPtr right, int line);
  Result ParseAnd();
  Result ParseNot();
  Result ParseCompare();
  Result ParseSum();
  Result ParseConcat();
  Result ParseProduct();
  Result ParsePower();
  Result ParseUnary(bool with_filters);
  Result ParsePrimary();
  Result ParseNameOrConstant();
  Result ParseParentheses();
  Result ParseList();
  Result ParseDict();
  Result ParsePostfix(ExpressionPtr node);
  Result ParseSubscript(ExpressionPtr node);
  Result ParseCall(ExpressionPtr node);
  Result ParseFiltersAndTests(ExpressionPtr node);
  Result ParseFilter(ExpressionPtr node);
  Result ParseTest(ExpressionPtr node);
  absl::Status ParseArguments(Expression* node);
  absl::Status CheckFilter(const Expression& node) const;

  TokenStream& in_;
  const int32_t max_depth_;
  int32_t nesting_ = 0;
  std::map<std::string, int> used_;
  std::map<std::string, int> called_;
  std::set<std::string> probed_;
};

}  // namespace hgrn2::chat
