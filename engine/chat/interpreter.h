// Walks a syntax tree for one rendering.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat/environment.h"
#include "engine/chat/syntax_tree.h"

namespace hgrn2::chat {

class Interpreter {
 public:
  // All outlive the interpreter; `variables` is a dict.
  Interpreter(const Value& variables, Budget* budget);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // The text; on error, line() is where.
  absl::StatusOr<std::string> Run(const Body& body);
  // 0 if the error has no line.
  int line() const { return error_line_; }

 private:
  enum class Flow { kNext, kBreak, kContinue };
  struct Scope {
    std::shared_ptr<Scope> parent;
    std::vector<std::pair<const std::string*, Value>> names;
  };
  class Entered;  // a scope within the current one, for as long as it lives
  class Deeper;   // counts recursion

  using Result = absl::StatusOr<Value>;
  using FlowResult = absl::StatusOr<Flow>;

  // Notes the line of the first error.
  absl::Status At(int line, absl::Status status);
  void Assign(const std::string& name, Value value);
  Value Lookup(const std::string& name);

  FlowResult Execute(const Body& body);
  FlowResult Execute(const Statement& statement);
  FlowResult ExecuteStatement(const Statement& statement);
  FlowResult ExecuteIf(const Statement& statement);
  FlowResult ExecuteFor(const Statement& statement);
  // The items that pass the loop's own condition.
  absl::StatusOr<std::vector<Value>> LoopItems(const Statement& statement);
  absl::Status ExecuteSet(const Statement& statement);
  absl::Status ExecuteSetBlock(const Statement& statement);
  absl::Status ExecuteWith(const Statement& statement);
  absl::Status AssignTargets(const Statement& statement, const Value& value);
  absl::Status AssignTarget(const Statement::Target& target, Value value);
  void DefineMacro(const Statement& statement);
  Result CallMacro(const Statement& macro, const std::shared_ptr<Scope>& scope, const Args& args);
  absl::Status BindMacro(const Statement& macro, const Args& args);
  // What the body writes, in a scope of its own.
  absl::StatusOr<std::string> Capture(const Body& body);
  absl::Status Write(std::string_view text);

  Result Evaluate(const Expression& node);
  Result EvaluateNode(const Expression& node);
  Result EvaluateLogic(const Expression& node);
  Result EvaluateItem(const Expression& node);
  Result EvaluateSlice(const Expression& node);
  Result EvaluateList(const Expression& node);
  Result EvaluateDict(const Expression& node);
  Result EvaluateConcat(const Expression& node);
  Result EvaluateCompare(const Expression& node);
  Result EvaluateCall(const Expression& node);
  Result EvaluateTest(const Expression& node);
  Result EvaluateFilter(const Expression& node, const Value& value);
  // Through a block's filters, the innermost first.
  Result ApplyFilters(const Expression* filter, Value value);
  absl::StatusOr<Args> EvaluateArguments(const Expression& node);

  const Value& variables_;
  Budget* const budget_;
  std::shared_ptr<Scope> scope_;
  Namespaces namespaces_;
  std::string* out_ = nullptr;
  int32_t depth_ = 0;
  int error_line_ = 0;
};

}  // namespace hgrn2::chat
