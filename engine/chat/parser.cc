#include "engine/chat/parser.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <utility>

#include "base/status.h"
#include "engine/chat/environment.h"
#include "engine/chat/expression_parser.h"

namespace hgrn2::chat {
namespace {

using Kind = Statement::Kind;
using StatementPtr = std::unique_ptr<Statement>;
using Result = absl::StatusOr<StatementPtr>;

bool OneOf(const std::string& name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Parser {
 public:
  Parser(std::vector<Token> tokens, int32_t max_depth)
      : in_(std::move(tokens)), expressions_(&in_, max_depth), max_depth_(max_depth) {}

  absl::StatusOr<Body> Run() {
    ASSIGN_OR_RETURN(Body body, ParseBody({}));
    RETURN_IF_ERROR(CheckNames());
    return body;
  }

 private:
  StatementPtr New(Kind kind, int line) const {
    auto node = std::make_unique<Statement>();
    node->kind = kind;
    node->line = line;
    return node;
  }

  // Up to (and with) "{% end" for one of `ends`, which is the current token then.
  absl::StatusOr<Body> ParseBody(std::initializer_list<std::string_view> ends) {
    if (++nesting_ > max_depth_)
      return SyntaxError(in_.line(), "blocks are nested too deep (max_depth)");
    const int begin = last_tag_line_;
    Body body;
    while (true) {
      const Token token = in_.Take();
      if (token.type == Token::Type::kEnd) {
        if (ends.size() == 0) break;
        return SyntaxError(begin,
                           fmt::format("the block that begins here is not closed with {{% {} %}}",
                                       *(ends.end() - 1)));
      }
      StatementPtr statement;
      if (token.type == Token::Type::kData) {
        statement = New(Kind::kData, token.line);
        statement->text = Value::MakeText(token.text, nullptr);
      } else if (token.type == Token::Type::kVariableBegin) {
        statement = New(Kind::kOutput, token.line);
        ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseTuple(true));
        statement->expressions.push_back(std::move(value));
        if (in_.current().type != Token::Type::kVariableEnd) return in_.Unexpected("'}}'");
        in_.Take();
      } else {
        if (in_.current().type != Token::Type::kName) return in_.Unexpected("the name of a tag");
        if (OneOf(in_.current().text, ends)) break;
        ASSIGN_OR_RETURN(statement, ParseTag());
      }
      body.push_back(std::move(statement));
    }
    --nesting_;
    return body;
  }

  absl::Status EndTag() {
    if (in_.current().type != Token::Type::kBlockEnd) return in_.Unexpected("'%}'");
    in_.Take();
    return absl::OkStatus();
  }

  // The body of the tag whose "%}" comes now, and its end tag.
  absl::Status ParseOnlyBody(std::string_view end, Statement* node) {
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(Body body, ParseBody({end}));
    node->bodies.push_back(std::move(body));
    in_.Take();
    return EndTag();
  }

  Result ParseTag() {
    const Token tag = in_.Take();
    last_tag_line_ = tag.line;
    const std::string& name = tag.text;
    if (name == "if") return ParseIf(tag.line);
    if (name == "for") return ParseFor(tag.line);
    if (name == "set") return ParseSet(tag.line);
    if (name == "macro") return ParseMacro(tag.line);
    if (name == "with") return ParseWith(tag.line);
    if (name == "filter") return ParseFilterBlock(tag.line);
    if (name == "generation") {
      StatementPtr node = New(Kind::kScope, tag.line);
      RETURN_IF_ERROR(ParseOnlyBody("endgeneration", node.get()));
      return node;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0)
        return SyntaxError(tag.line, fmt::format("{{% {} %}} is not within a loop", name));
      StatementPtr node = New(name == "break" ? Kind::kBreak : Kind::kContinue, tag.line);
      RETURN_IF_ERROR(EndTag());
      return node;
    }
    if (name.starts_with("end") || OneOf(name, {"else", "elif"})) {
      return SyntaxError(tag.line, fmt::format("unexpected {{% {} %}}", name));
    }
    return SyntaxError(tag.line,
                       fmt::format("the tag {{% {} %}} is not supported", name.substr(0, 60)));
  }

  Result ParseIf(int line) {
    StatementPtr node = New(Kind::kIf, line);
    bool has_else = false;
    while (true) {
      if (!has_else) {
        ASSIGN_OR_RETURN(ExpressionPtr condition, expressions_.ParseTuple(false));
        node->expressions.push_back(std::move(condition));
      }
      RETURN_IF_ERROR(EndTag());
      absl::StatusOr<Body> body =
          has_else ? ParseBody({"endif"}) : ParseBody({"elif", "else", "endif"});
      if (!body.ok()) return body.status();
      node->bodies.push_back(*std::move(body));
      const std::string tag = in_.Take().text;
      if (tag == "endif") break;
      has_else = tag == "else";
    }
    RETURN_IF_ERROR(EndTag());
    return node;
  }

  absl::StatusOr<Statement::Target> ParseTarget(bool allow_attribute) {
    Statement::Target target;
    const int line = in_.line();
    ASSIGN_OR_RETURN(target.name, in_.ExpectName());
    if (OneOf(target.name, {"true", "false", "none", "True", "False", "None"})) {
      return SyntaxError(line, fmt::format("cannot assign to {}", target.name));
    }
    if (allow_attribute && in_.SkipOperator(".")) {
      ASSIGN_OR_RETURN(target.attribute, in_.ExpectName());
    } else {
      assigned_.insert(target.name);
    }
    return target;
  }

  // a, or a, b, c, or (a, b).
  absl::Status ParseTargets(bool allow_attribute, Statement* node) {
    const bool parentheses = in_.SkipOperator("(");
    do {
      if (node->unpack && in_.current().type != Token::Type::kName) break;
      ASSIGN_OR_RETURN(Statement::Target target, ParseTarget(allow_attribute));
      node->targets.push_back(std::move(target));
      node->unpack |= in_.current().IsOperator(",");
    } while (in_.SkipOperator(","));
    if (parentheses) RETURN_IF_ERROR(in_.ExpectOperator(")"));
    return absl::OkStatus();
  }

  Result ParseFor(int line) {
    StatementPtr node = New(Kind::kFor, line);
    RETURN_IF_ERROR(ParseTargets(false, node.get()));
    if (!in_.SkipName("in")) return in_.Unexpected("'in'");
    ASSIGN_OR_RETURN(ExpressionPtr items, expressions_.ParseTuple(false));
    node->expressions.push_back(std::move(items));
    ExpressionPtr condition;
    if (in_.SkipName("if")) {
      ASSIGN_OR_RETURN(condition, expressions_.Parse());
    }
    node->expressions.push_back(std::move(condition));
    if (in_.current().IsName("recursive"))
      return SyntaxError(line, "recursive loops are not supported");
    RETURN_IF_ERROR(EndTag());
    ++loops_;
    ASSIGN_OR_RETURN(Body body, ParseBody({"else", "endfor"}));
    --loops_;
    node->bodies.push_back(std::move(body));
    if (in_.Take().text == "else") {
      RETURN_IF_ERROR(EndTag());
      ASSIGN_OR_RETURN(Body otherwise, ParseBody({"endfor"}));
      node->bodies.push_back(std::move(otherwise));
      in_.Take();
    }
    RETURN_IF_ERROR(EndTag());
    return node;
  }

  Result ParseSet(int line) {
    StatementPtr node = New(Kind::kSet, line);
    RETURN_IF_ERROR(ParseTargets(true, node.get()));
    if (in_.SkipOperator("=")) {
      ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseTuple(true));
      node->expressions.push_back(std::move(value));
      RETURN_IF_ERROR(EndTag());
      return node;
    }
    node->kind = Kind::kSetBlock;
    if (node->unpack) return SyntaxError(line, "a {% set %} block has one target");
    ASSIGN_OR_RETURN(ExpressionPtr filters, expressions_.ParseBlockFilters(false));
    node->expressions.push_back(std::move(filters));
    RETURN_IF_ERROR(ParseOnlyBody("endset", node.get()));
    return node;
  }

  Result ParseMacro(int line) {
    StatementPtr node = New(Kind::kMacro, line);
    ASSIGN_OR_RETURN(node->name, in_.ExpectName());
    assigned_.insert(node->name);
    RETURN_IF_ERROR(in_.ExpectOperator("("));
    while (!in_.SkipOperator(")")) {
      if (!node->targets.empty()) RETURN_IF_ERROR(in_.ExpectOperator(","));
      ASSIGN_OR_RETURN(Statement::Target parameter, ParseTarget(false));
      node->targets.push_back(std::move(parameter));
      ExpressionPtr value;
      if (in_.SkipOperator("=")) {
        ASSIGN_OR_RETURN(value, expressions_.Parse());
      } else if (!node->expressions.empty() && node->expressions.back() != nullptr) {
        return SyntaxError(line, "a parameter without a default follows one with a default");
      }
      node->expressions.push_back(std::move(value));
    }
    const int loops = std::exchange(loops_, 0);
    RETURN_IF_ERROR(ParseOnlyBody("endmacro", node.get()));
    loops_ = loops;
    return node;
  }

  Result ParseWith(int line) {
    StatementPtr node = New(Kind::kWith, line);
    while (in_.current().type != Token::Type::kBlockEnd) {
      if (!node->targets.empty()) RETURN_IF_ERROR(in_.ExpectOperator(","));
      ASSIGN_OR_RETURN(Statement::Target target, ParseTarget(false));
      node->targets.push_back(std::move(target));
      RETURN_IF_ERROR(in_.ExpectOperator("="));
      ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.Parse());
      node->expressions.push_back(std::move(value));
    }
    RETURN_IF_ERROR(ParseOnlyBody("endwith", node.get()));
    return node;
  }

  Result ParseFilterBlock(int line) {
    StatementPtr node = New(Kind::kFilter, line);
    ASSIGN_OR_RETURN(ExpressionPtr filters, expressions_.ParseBlockFilters(true));
    node->expressions.push_back(std::move(filters));
    RETURN_IF_ERROR(ParseOnlyBody("endfilter", node.get()));
    return node;
  }

  // Names that Jinja2 defines and we do not, and functions that nobody can have defined.
  absl::Status CheckNames() const {
    for (const auto& [name, line] : expressions_.used()) {
      const bool special = OneOf(
          name, {"lipsum", "cycler", "joiner", "self", "super", "caller", "varargs", "kwargs"});
      if (special && !assigned_.contains(name)) {
        return SyntaxError(line, fmt::format("'{}' is not supported", name));
      }
    }
    for (const auto& [name, line] : expressions_.called()) {
      const bool known = assigned_.contains(name) || IsGlobal(name) || name == "loop" ||
                         expressions_.probed().contains(name);
      if (name == "loop" && !assigned_.contains(name)) {
        return SyntaxError(line, "recursive loops are not supported");
      }
      if (!known)
        return SyntaxError(line,
                           fmt::format("the function {}() is not supported", name.substr(0, 60)));
    }
    return absl::OkStatus();
  }

  TokenStream in_;
  ExpressionParser expressions_;
  const int32_t max_depth_;
  int32_t nesting_ = 0;
  int loops_ = 0;
  int last_tag_line_ = 1;
  std::set<std::string> assigned_;
};

}  // namespace

absl::StatusOr<Body> Parse(std::string_view source, int32_t max_depth) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens), max_depth).Run();
}

}  // namespace hgrn2::chat
