#include "engine/chat/expression_parser.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/status.h"
#include "engine/chat/methods.h"

namespace hgrn2::chat {

// Counts how deep the parser's own recursion goes.
class ExpressionParser::Nested {
 public:
  explicit Nested(ExpressionParser* parser) : parser_(parser) { ++parser_->nesting_; }
  ~Nested() { --parser_->nesting_; }
  absl::Status Check() const {
    if (parser_->nesting_ <= parser_->max_depth_) return absl::OkStatus();
    return SyntaxError(parser_->in_.line(), "expressions are nested too deep (max_depth)");
  }

 private:
  ExpressionParser* const parser_;
};

ExpressionPtr ExpressionParser::New(Kind kind, int line) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExpressionParser::Result ExpressionParser::Finish(ExpressionPtr node) {
  const auto deepen = [&](const ExpressionPtr& child) {
    if (child != nullptr) node->depth = std::max(node->depth, child->depth + 1);
  };
  for (const ExpressionPtr& child : node->children) deepen(child);
  for (const ExpressionPtr& argument : node->arguments) deepen(argument);
  for (const auto& [_, argument] : node->named_arguments) deepen(argument);
  if (node->depth > max_depth_) {
    return SyntaxError(node->line, "expressions are nested too deep (max_depth)");
  }
  return node;
}

ExpressionParser::Result ExpressionParser::Binary(Kind kind, std::string op, ExpressionPtr left,
                                                  ExpressionPtr right, int line) {
  ExpressionPtr node = New(kind, line);
  node->name = std::move(op);
  node->children.push_back(std::move(left));
  node->children.push_back(std::move(right));
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::Parse() {
  const Nested nested(this);
  RETURN_IF_ERROR(nested.Check());
  int line = in_.line();
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  while (in_.SkipName("if")) {
    ExpressionPtr node = New(Kind::kConditional, line);
    ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (in_.SkipName("else")) {
      ASSIGN_OR_RETURN(otherwise, Parse());
    }
    node->children.push_back(std::move(condition));
    node->children.push_back(std::move(value));
    node->children.push_back(std::move(otherwise));
    ASSIGN_OR_RETURN(value, Finish(std::move(node)));
    line = in_.line();
  }
  return value;
}

ExpressionParser::Result ExpressionParser::ParseTuple(bool allow_conditional) {
  const int line = in_.line();
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  do {
    const Token& token = in_.current();
    const bool end = token.type == Token::Type::kVariableEnd ||
                     token.type == Token::Type::kBlockEnd || token.IsOperator(")");
    if (end) break;
    ASSIGN_OR_RETURN(ExpressionPtr item, allow_conditional ? Parse() : ParseOr());
    items.push_back(std::move(item));
    is_tuple |= in_.current().IsOperator(",");
  } while (in_.SkipOperator(","));
  if (!is_tuple && items.size() == 1) return std::move(items[0]);
  if (!is_tuple) return in_.Unexpected("an expression");
  ExpressionPtr node = New(Kind::kTuple, line);
  node->children = std::move(items);
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseOr() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  for (int line = in_.line(); in_.SkipName("or"); line = in_.line()) {
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    ASSIGN_OR_RETURN(left, Binary(Kind::kOr, "or", std::move(left), std::move(right), line));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseAnd() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  for (int line = in_.line(); in_.SkipName("and"); line = in_.line()) {
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    ASSIGN_OR_RETURN(left, Binary(Kind::kAnd, "and", std::move(left), std::move(right), line));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseNot() {
  const Nested nested(this);
  RETURN_IF_ERROR(nested.Check());
  const int line = in_.line();
  if (!in_.SkipName("not")) return ParseCompare();
  ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  ExpressionPtr node = New(Kind::kNot, line);
  node->children.push_back(std::move(operand));
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseCompare() {
  const int line = in_.line();
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  ExpressionPtr node;
  while (true) {
    std::string op;
    for (const char* candidate : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (op.empty() && in_.SkipOperator(candidate)) op = candidate;
    }
    if (op.empty() && in_.SkipName("in")) op = "in";
    if (op.empty() && in_.current().IsName("not") && in_.next().IsName("in")) {
      in_.Take();
      in_.Take();
      op = "not in";
    }
    if (op.empty()) break;
    if (node == nullptr) {
      node = New(Kind::kCompare, line);
      node->children.push_back(std::move(first));
    }
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    node->operators.push_back(std::move(op));
    node->children.push_back(std::move(operand));
  }
  if (node == nullptr) return first;
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseSum() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseConcat());
  while (in_.current().IsOperator("+") || in_.current().IsOperator("-")) {
    const int line = in_.line();
    std::string op = in_.Take().text;
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseConcat());
    ASSIGN_OR_RETURN(left,
                     Binary(Kind::kBinary, std::move(op), std::move(left), std::move(right), line));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseConcat() {
  const int line = in_.line();
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
  if (!in_.current().IsOperator("~")) return first;
  ExpressionPtr node = New(Kind::kConcat, line);
  node->children.push_back(std::move(first));
  while (in_.SkipOperator("~")) {
    ASSIGN_OR_RETURN(ExpressionPtr next, ParseProduct());
    node->children.push_back(std::move(next));
  }
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseProduct() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParsePower());
  while (true) {
    const Token& token = in_.current();
    const bool product = token.IsOperator("*") || token.IsOperator("/") || token.IsOperator("//") ||
                         token.IsOperator("%");
    if (!product) return left;
    const int line = in_.line();
    std::string op = in_.Take().text;
    ASSIGN_OR_RETURN(ExpressionPtr right, ParsePower());
    ASSIGN_OR_RETURN(left,
                     Binary(Kind::kBinary, std::move(op), std::move(left), std::move(right), line));
  }
}

ExpressionParser::Result ExpressionParser::ParsePower() {
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary(true));
  for (int line = in_.line(); in_.SkipOperator("**"); line = in_.line()) {
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary(true));
    ASSIGN_OR_RETURN(left, Binary(Kind::kBinary, "**", std::move(left), std::move(right), line));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseUnary(bool with_filters) {
  const Nested nested(this);
  RETURN_IF_ERROR(nested.Check());
  const int line = in_.line();
  ExpressionPtr node;
  if (in_.current().IsOperator("-") || in_.current().IsOperator("+")) {
    node = New(in_.Take().text == "-" ? Kind::kNegate : Kind::kPlus, line);
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(false));
    node->children.push_back(std::move(operand));
    ASSIGN_OR_RETURN(node, Finish(std::move(node)));
  } else {
    ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (!with_filters) return node;
  return ParseFiltersAndTests(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParsePrimary() {
  const Token& token = in_.current();
  if (token.type == Token::Type::kName) return ParseNameOrConstant();
  if (token.IsOperator("(")) return ParseParentheses();
  if (token.IsOperator("[")) return ParseList();
  if (token.IsOperator("{")) return ParseDict();
  ExpressionPtr node = New(Kind::kConstant, token.line);
  if (token.type == Token::Type::kString) {
    std::string text;
    while (in_.current().type == Token::Type::kString) text += in_.Take().text;
    node->value = Value::MakeText(std::move(text), nullptr);
  } else if (token.type == Token::Type::kInteger) {
    node->value = Value(in_.Take().integer);
  } else if (token.type == Token::Type::kFloat) {
    node->value = Value(in_.Take().number);
  } else {
    return in_.Unexpected("an expression");
  }
  return node;
}

ExpressionParser::Result ExpressionParser::ParseNameOrConstant() {
  const Token token = in_.Take();
  ExpressionPtr node = New(Kind::kConstant, token.line);
  if (token.text == "true" || token.text == "True") {
    node->value = Value(true);
  } else if (token.text == "false" || token.text == "False") {
    node->value = Value(false);
  } else if (token.text == "none" || token.text == "None") {
    node->value = Value::MakeNone();
  } else {
    node->kind = Kind::kName;
    node->name = token.text;
    used_.emplace(token.text, token.line);
  }
  return node;
}

ExpressionParser::Result ExpressionParser::ParseParentheses() {
  const int line = in_.line();
  in_.Take();
  if (in_.SkipOperator(")")) return New(Kind::kTuple, line);
  ASSIGN_OR_RETURN(ExpressionPtr node, ParseTuple(true));
  RETURN_IF_ERROR(in_.ExpectOperator(")"));
  return node;
}

ExpressionParser::Result ExpressionParser::ParseList() {
  ExpressionPtr node = New(Kind::kList, in_.line());
  in_.Take();
  while (!in_.current().IsOperator("]")) {
    if (!node->children.empty()) {
      RETURN_IF_ERROR(in_.ExpectOperator(","));
      if (in_.current().IsOperator("]")) break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr item, Parse());
    node->children.push_back(std::move(item));
  }
  in_.Take();
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseDict() {
  ExpressionPtr node = New(Kind::kDict, in_.line());
  in_.Take();
  while (!in_.current().IsOperator("}")) {
    if (!node->children.empty()) {
      RETURN_IF_ERROR(in_.ExpectOperator(","));
      if (in_.current().IsOperator("}")) break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr key, Parse());
    RETURN_IF_ERROR(in_.ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
    node->children.push_back(std::move(key));
    node->children.push_back(std::move(value));
  }
  in_.Take();
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParsePostfix(ExpressionPtr node) {
  while (true) {
    if (in_.current().IsOperator(".") || in_.current().IsOperator("[")) {
      ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (in_.current().IsOperator("(")) {
      ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

ExpressionParser::Result ExpressionParser::ParseSubscript(ExpressionPtr object) {
  const int line = in_.line();
  if (in_.SkipOperator(".")) {
    const Token token = in_.Take();
    if (token.type == Token::Type::kName) {
      ExpressionPtr node = New(Kind::kAttribute, line);
      node->name = token.text;
      node->children.push_back(std::move(object));
      return Finish(std::move(node));
    }
    if (token.type != Token::Type::kInteger)
      return SyntaxError(line, "expected a name or a number after '.'");
    ExpressionPtr index = New(Kind::kConstant, line);
    index->value = Value(token.integer);
    return Binary(Kind::kItem, "", std::move(object), std::move(index), line);
  }
  in_.Take();
  std::array<ExpressionPtr, 3> parts;
  int colons = 0;
  while (!in_.current().IsOperator("]")) {
    if (in_.SkipOperator(":")) {
      if (++colons > 2) return SyntaxError(line, "a slice has at most two ':'");
      continue;
    }
    if (in_.current().IsOperator(","))
      return SyntaxError(line, "subscripts with ',' are not supported");
    if (parts[colons] != nullptr) return in_.Unexpected("']'");
    ASSIGN_OR_RETURN(parts[colons], Parse());
  }
  in_.Take();
  if (colons == 0 && parts[0] == nullptr) return SyntaxError(line, "a subscript is empty");
  if (colons == 0) return Binary(Kind::kItem, "", std::move(object), std::move(parts[0]), line);
  ExpressionPtr node = New(Kind::kSlice, line);
  node->children.push_back(std::move(object));
  for (ExpressionPtr& part : parts) node->children.push_back(std::move(part));
  return Finish(std::move(node));
}

ExpressionParser::Result ExpressionParser::ParseCall(ExpressionPtr callee) {
  ExpressionPtr node = New(Kind::kCall, in_.line());
  if (callee->kind == Kind::kName) called_.emplace(callee->name, callee->line);
  if (callee->kind == Kind::kAttribute && IsRefusedMethod(callee->name)) {
    return SyntaxError(callee->line,
                       fmt::format("the method {}() is not supported (or, as it changes "
                                   "its object, not allowed in templates)",
                                   callee->name));
  }
  node->children.push_back(std::move(callee));
  RETURN_IF_ERROR(ParseArguments(node.get()));
  return Finish(std::move(node));
}

absl::Status ExpressionParser::ParseArguments(Expression* node) {
  RETURN_IF_ERROR(in_.ExpectOperator("("));
  bool first = true;
  while (!in_.current().IsOperator(")")) {
    if (!first) {
      RETURN_IF_ERROR(in_.ExpectOperator(","));
      if (in_.current().IsOperator(")")) break;
    }
    first = false;
    if (in_.current().IsOperator("*") || in_.current().IsOperator("**")) {
      return SyntaxError(in_.line(), "arguments with * and ** are not supported");
    }
    if (in_.current().type == Token::Type::kName && in_.next().IsOperator("=")) {
      std::string name = in_.Take().text;
      in_.Take();
      ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      node->named_arguments.emplace_back(std::move(name), std::move(value));
      continue;
    }
    if (!node->named_arguments.empty()) {
      return SyntaxError(in_.line(), "an argument without a name follows one with a name");
    }
    ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
    node->arguments.push_back(std::move(value));
  }
  return in_.ExpectOperator(")");
}

ExpressionParser::Result ExpressionParser::ParseFiltersAndTests(ExpressionPtr node) {
  while (true) {
    if (in_.SkipOperator("|")) {
      ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
    } else if (in_.current().IsName("is")) {
      ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (in_.current().IsOperator("(")) {
      ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

ExpressionParser::Result ExpressionParser::ParseBlockFilters(bool first_is_bare) {
  ExpressionPtr node;
  if (first_is_bare) {
    ASSIGN_OR_RETURN(node, ParseFilter(nullptr));
  }
  while (in_.SkipOperator("|")) {
    ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
  }
  return node;
}

ExpressionParser::Result ExpressionParser::ParseFilter(ExpressionPtr value) {
  ExpressionPtr node = New(Kind::kFilter, in_.line());
  ASSIGN_OR_RETURN(node->name, in_.ExpectName());
  node->children.push_back(std::move(value));
  node->filter = FindFilter(node->name);
  if (node->filter == nullptr || in_.current().IsOperator(".")) {
    return SyntaxError(node->line, fmt::format("the filter '{}' is not supported", node->name));
  }
  if (in_.current().IsOperator("(")) RETURN_IF_ERROR(ParseArguments(node.get()));
  RETURN_IF_ERROR(CheckFilter(*node));
  return Finish(std::move(node));
}

absl::Status ExpressionParser::CheckFilter(const Expression& node) const {
  if (node.name == "safe" && in_.current().type != Token::Type::kVariableEnd) {
    return SyntaxError(node.line, "the filter 'safe' is supported only at the end of {{ }}");
  }
  const bool by_attribute = node.name == "selectattr" || node.name == "rejectattr";
  const bool by_test = by_attribute || node.name == "select" || node.name == "reject";
  const size_t at = by_attribute ? 1 : 0;
  if (!by_test && node.name != "map") return absl::OkStatus();
  if (node.arguments.size() <= at || !node.arguments[at]->value.IsText()) return absl::OkStatus();
  const std::string& name = node.arguments[at]->value.str();
  if (by_test && FindTest(name) == nullptr) {
    return SyntaxError(node.line, fmt::format("the test '{}' is not supported", name));
  }
  if (!by_test && FindFilter(name) == nullptr) {
    return SyntaxError(node.line, fmt::format("the filter '{}' is not supported", name));
  }
  return absl::OkStatus();
}

ExpressionParser::Result ExpressionParser::ParseTest(ExpressionPtr subject) {
  ExpressionPtr node = New(Kind::kTest, in_.line());
  in_.Take();
  const bool negated = in_.SkipName("not");
  ASSIGN_OR_RETURN(node->name, in_.ExpectName());
  node->test = FindTest(node->name);
  if (node->test == nullptr || in_.current().IsOperator(".")) {
    return SyntaxError(node->line, fmt::format("the test '{}' is not supported", node->name));
  }
  const bool probe = node->name == "defined" || node->name == "undefined";
  if (probe && subject->kind == Kind::kName) probed_.insert(subject->name);
  node->children.push_back(std::move(subject));
  const Token& token = in_.current();
  const bool operand = token.type == Token::Type::kString || token.type == Token::Type::kInteger ||
                       token.type == Token::Type::kFloat || token.IsOperator("[") ||
                       token.IsOperator("{");
  const bool name = token.type == Token::Type::kName && !token.IsName("else") &&
                    !token.IsName("or") && !token.IsName("and");
  if (token.IsName("is")) return SyntaxError(token.line, "tests cannot be chained with 'is'");
  if (token.IsOperator("(")) {
    RETURN_IF_ERROR(ParseArguments(node.get()));
  } else if (operand || name) {
    // A name that continues the statement ("x is defined if ...") is taken as an operand by Jinja2,
    // too: it fails there as here.
    ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    node->arguments.push_back(std::move(argument));
  }
  ASSIGN_OR_RETURN(node, Finish(std::move(node)));
  if (!negated) return node;
  const int line = node->line;
  ExpressionPtr negation = New(Kind::kNot, line);
  negation->children.push_back(std::move(node));
  return Finish(std::move(negation));
}

}  // namespace hgrn2::chat
