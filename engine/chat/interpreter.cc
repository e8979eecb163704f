#include "engine/chat/interpreter.h"

#include "base/status.h"
#include "engine/chat/limits.h"
#include "engine/chat/methods.h"
#include "engine/chat/operators.h"

namespace hgrn2::chat {
namespace {

template <typename... Parts>
absl::Status Fail(fmt::format_string<Parts...> format, Parts&&... parts) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, format, std::forward<Parts>(parts)...);
}

}  // namespace

// Macros keep the scope they were defined in. Emptied at its end, it cannot keep them in turn.
class Interpreter::Entered {
 public:
  Entered(Interpreter* in, std::shared_ptr<Scope> parent) : in_(in), outer_(in->scope_) {
    in->scope_ = std::make_shared<Scope>();
    in->scope_->parent = std::move(parent);
  }
  explicit Entered(Interpreter* in) : Entered(in, in->scope_) {}
  ~Entered() {
    const std::shared_ptr<Scope> inner = std::exchange(in_->scope_, std::move(outer_));
    const auto names = std::move(inner->names);  // destroyed after the scope is empty
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  Interpreter* const in_;
  std::shared_ptr<Scope> outer_;
};

class Interpreter::Deeper {
 public:
  explicit Deeper(Interpreter* in) : in_(in) { ++in_->depth_; }
  ~Deeper() { --in_->depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

  absl::Status Check() const {
    if (in_->depth_ > in_->budget_->options().max_depth) {
      return Fail("macros and expressions are nested too deep (max_depth)");
    }
    return in_->budget_->Step();
  }

 private:
  Interpreter* const in_;
};

Interpreter::Interpreter(const Value& variables, Budget* budget)
    : variables_(variables), budget_(budget), scope_(std::make_shared<Scope>()) {}

Interpreter::~Interpreter() {
  const auto names = std::move(scope_->names);
  for (const std::shared_ptr<Namespace>& ns : namespaces_) {
    const auto attributes = std::move(ns->attributes);
    ns->attributes.clear();
  }
}

absl::StatusOr<std::string> Interpreter::Run(const Body& body) {
  std::string out;
  out_ = &out;
  RETURN_IF_ERROR(Execute(body).status());
  return out;
}

absl::Status Interpreter::At(int line, absl::Status status) {
  if (error_line_ == 0) error_line_ = line;
  return status;
}

void Interpreter::Assign(const std::string& name, Value value) {
  for (auto& [known, held] : scope_->names) {
    if (*known == name) {
      held = std::move(value);
      return;
    }
  }
  scope_->names.emplace_back(&name, std::move(value));
}

Value Interpreter::Lookup(const std::string& name) {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [known, value] : scope->names) {
      if (*known == name) return value;
    }
  }
  if (const Value* const value = variables_.dict()->Find(name)) return *value;
  if (IsGlobal(name)) return GetGlobal(name, budget_, &namespaces_);
  return Value::MakeUndefined(fmt::format("'{}' is undefined", name));
}

absl::Status Interpreter::Write(std::string_view text) {
  out_->append(text);
  budget_->Work(static_cast<int64_t>(text.size()));
  if (std::ssize(*out_) <= budget_->options().max_output_bytes) return absl::OkStatus();
  return Fail("the template writes more than {} bytes (max_output_bytes)",
              budget_->options().max_output_bytes);
}

Interpreter::FlowResult Interpreter::Execute(const Body& body) {
  for (const auto& statement : body) {
    ASSIGN_OR_RETURN(const Flow flow, Execute(*statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::FlowResult Interpreter::Execute(const Statement& statement) {
  const Deeper deeper(this);
  absl::Status status = deeper.Check();
  if (!status.ok()) return At(statement.line, std::move(status));
  FlowResult result = ExecuteStatement(statement);
  if (!result.ok()) return At(statement.line, result.status());
  return result;
}

Interpreter::FlowResult Interpreter::ExecuteStatement(const Statement& statement) {
  switch (statement.kind) {
    case Statement::Kind::kData:
      RETURN_IF_ERROR(Write(statement.text.str()));
      break;
    case Statement::Kind::kOutput: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expressions[0]));
      ASSIGN_OR_RETURN(const std::string text, ToText(value));
      RETURN_IF_ERROR(Write(text));
      break;
    }
    case Statement::Kind::kIf:
      return ExecuteIf(statement);
    case Statement::Kind::kFor:
      return ExecuteFor(statement);
    case Statement::Kind::kSet:
      RETURN_IF_ERROR(ExecuteSet(statement));
      break;
    case Statement::Kind::kSetBlock:
      RETURN_IF_ERROR(ExecuteSetBlock(statement));
      break;
    case Statement::Kind::kMacro:
      DefineMacro(statement);
      break;
    case Statement::Kind::kWith:
      RETURN_IF_ERROR(ExecuteWith(statement));
      break;
    case Statement::Kind::kFilter: {
      ASSIGN_OR_RETURN(std::string text, Capture(statement.bodies[0]));
      ASSIGN_OR_RETURN(const Value value, ApplyFilters(statement.expressions[0].get(),
                                                       Value::MakeText(std::move(text), budget_)));
      ASSIGN_OR_RETURN(const std::string filtered, ToText(value));
      RETURN_IF_ERROR(Write(filtered));
      break;
    }
    case Statement::Kind::kScope: {
      const Entered entered(this);
      return Execute(statement.bodies[0]);
    }
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::FlowResult Interpreter::ExecuteIf(const Statement& statement) {
  for (size_t i = 0; i < statement.expressions.size(); ++i) {
    ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.expressions[i]));
    if (IsTrue(condition)) return Execute(statement.bodies[i]);
  }
  if (statement.bodies.size() > statement.expressions.size())
    return Execute(statement.bodies.back());
  return Flow::kNext;
}

absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(const Statement& statement) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expressions[0]));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value, budget_));
  if (statement.expressions[1] == nullptr) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    const Entered entered(this);
    RETURN_IF_ERROR(AssignTargets(statement, item));
    ASSIGN_OR_RETURN(const Value passes, Evaluate(*statement.expressions[1]));
    if (IsTrue(passes)) kept.push_back(std::move(item));
  }
  return kept;
}

Interpreter::FlowResult Interpreter::ExecuteFor(const Statement& statement) {
  static const auto* const loop_name = new std::string("loop");
  ASSIGN_OR_RETURN(std::vector<Value> items, LoopItems(statement));
  if (items.empty()) {
    if (statement.bodies.size() < 2) return Flow::kNext;
    const Entered entered(this);
    return Execute(statement.bodies[1]);
  }
  auto loop = std::make_shared<Loop>();
  for (const Value& item : items) loop->depth = std::max(loop->depth, item.depth() + 1);
  loop->items = std::make_shared<const std::vector<Value>>(std::move(items));
  for (; loop->index0 < std::ssize(*loop->items); ++loop->index0) {
    const Entered entered(this);
    RETURN_IF_ERROR(AssignTargets(statement, (*loop->items)[loop->index0]));
    Assign(*loop_name, Value(loop));
    ASSIGN_OR_RETURN(const Flow flow, Execute(statement.bodies[0]));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

absl::Status Interpreter::AssignTargets(const Statement& statement, const Value& value) {
  if (!statement.unpack) return AssignTarget(statement.targets[0], value);
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget_));
  if (items.size() != statement.targets.size()) {
    return Fail("{} values for {} names", items.size(), statement.targets.size());
  }
  for (size_t i = 0; i < items.size(); ++i) {
    RETURN_IF_ERROR(AssignTarget(statement.targets[i], items[i]));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::AssignTarget(const Statement::Target& target, Value value) {
  if (target.attribute.empty()) {
    Assign(target.name, std::move(value));
    return absl::OkStatus();
  }
  const Value object = Lookup(target.name);
  RETURN_IF_ERROR(UseUndefined(object));
  if (object.ns() == nullptr) {
    return Fail("cannot assign attribute on non-namespace object '{}'", target.name);
  }
  for (auto& [name, held] : object.ns()->attributes) {
    if (name == target.attribute) {
      held = std::move(value);
      return absl::OkStatus();
    }
  }
  budget_->Hold(100);
  object.ns()->attributes.emplace_back(target.attribute, std::move(value));
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteSet(const Statement& statement) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expressions[0]));
  return AssignTargets(statement, value);
}

absl::Status Interpreter::ExecuteSetBlock(const Statement& statement) {
  ASSIGN_OR_RETURN(std::string text, Capture(statement.bodies[0]));
  ASSIGN_OR_RETURN(Value value, ApplyFilters(statement.expressions[0].get(),
                                             Value::MakeText(std::move(text), budget_)));
  return AssignTarget(statement.targets[0], std::move(value));
}

absl::Status Interpreter::ExecuteWith(const Statement& statement) {
  std::vector<Value> values;
  for (const ExpressionPtr& expression : statement.expressions) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    values.push_back(std::move(value));
  }
  const Entered entered(this);
  for (size_t i = 0; i < values.size(); ++i)
    Assign(statement.targets[i].name, std::move(values[i]));
  return Execute(statement.bodies[0]).status();
}

void Interpreter::DefineMacro(const Statement& statement) {
  // Weak, lest the scope hold the macro and the macro the scope.
  const std::weak_ptr<Scope> weak = scope_;
  auto call = [this, &statement, weak](const Args& args) -> Result {
    const std::shared_ptr<Scope> scope = weak.lock();
    return CallMacro(statement, scope == nullptr ? scope_ : scope, args);
  };
  Assign(statement.name,
         Value(std::make_shared<const Callable>(Callable{statement.name, std::move(call)})));
}

Interpreter::Result Interpreter::CallMacro(const Statement& macro,
                                           const std::shared_ptr<Scope>& scope, const Args& args) {
  const Entered entered(this, scope);
  RETURN_IF_ERROR(BindMacro(macro, args));
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  const absl::Status status = Execute(macro.bodies[0]).status();
  out_ = outer;
  RETURN_IF_ERROR(status);
  return Value::MakeText(std::move(text), budget_);
}

absl::Status Interpreter::BindMacro(const Statement& macro, const Args& args) {
  const size_t count = macro.targets.size();
  if (args.positional.size() > count) {
    return Fail("macro '{}' takes not more than {} argument(s)", macro.name, count);
  }
  for (const auto& [name, _] : args.named) {
    bool known = false;
    for (size_t i = args.positional.size(); i < count; ++i) known |= macro.targets[i].name == name;
    if (!known) return Fail("macro '{}' has no free argument '{}'", macro.name, name);
  }
  for (size_t i = 0; i < count; ++i) {
    const std::string& name = macro.targets[i].name;
    Value value = Value::MakeUndefined(fmt::format("parameter '{}' was not provided", name));
    bool given = i < args.positional.size();
    if (given) value = args.positional[i];
    for (const auto& [named, held] : args.named) {
      if (named != name) continue;
      value = held;
      given = true;
    }
    if (!given && macro.expressions[i] != nullptr) {
      ASSIGN_OR_RETURN(value, Evaluate(*macro.expressions[i]));
    }
    Assign(name, std::move(value));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Interpreter::Capture(const Body& body) {
  const Entered entered(this);
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  const absl::Status status = Execute(body).status();
  out_ = outer;
  RETURN_IF_ERROR(status);
  return text;
}

Interpreter::Result Interpreter::ApplyFilters(const Expression* filter, Value value) {
  if (filter == nullptr) return value;
  ASSIGN_OR_RETURN(value, ApplyFilters(filter->children[0].get(), std::move(value)));
  Result result = EvaluateFilter(*filter, value);
  if (!result.ok()) return At(filter->line, result.status());
  return result;
}

Interpreter::Result Interpreter::Evaluate(const Expression& node) {
  if (node.kind == Expression::Kind::kConstant) return node.value;
  const Deeper deeper(this);
  absl::Status status = deeper.Check();
  if (!status.ok()) return At(node.line, std::move(status));
  Result result = EvaluateNode(node);
  if (!result.ok()) return At(node.line, result.status());
  status = CheckDepth(*result);
  if (!status.ok()) return At(node.line, std::move(status));
  return result;
}

Interpreter::Result Interpreter::EvaluateNode(const Expression& node) {
  switch (node.kind) {
    case Expression::Kind::kConstant:
      return node.value;
    case Expression::Kind::kName:
      return Lookup(node.name);
    case Expression::Kind::kAttribute:
    case Expression::Kind::kItem:
      return EvaluateItem(node);
    case Expression::Kind::kSlice:
      return EvaluateSlice(node);
    case Expression::Kind::kCall:
      return EvaluateCall(node);
    case Expression::Kind::kFilter: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
      return EvaluateFilter(node, value);
    }
    case Expression::Kind::kTest:
      return EvaluateTest(node);
    case Expression::Kind::kList:
    case Expression::Kind::kTuple:
      return EvaluateList(node);
    case Expression::Kind::kDict:
      return EvaluateDict(node);
    case Expression::Kind::kBinary: {
      ASSIGN_OR_RETURN(const Value a, Evaluate(*node.children[0]));
      ASSIGN_OR_RETURN(const Value b, Evaluate(*node.children[1]));
      return Arithmetic(node.name, a, b, budget_);
    }
    case Expression::Kind::kConcat:
      return EvaluateConcat(node);
    case Expression::Kind::kCompare:
      return EvaluateCompare(node);
    default:
      return EvaluateLogic(node);
  }
}

Interpreter::Result Interpreter::EvaluateLogic(const Expression& node) {
  ASSIGN_OR_RETURN(Value first, Evaluate(*node.children[0]));
  switch (node.kind) {
    case Expression::Kind::kNot:
      return Value(!IsTrue(first));
    case Expression::Kind::kNegate:
      return Negate(first);
    case Expression::Kind::kPlus:
      if (!first.IsNumber()) return Fail("unsupported operand type for +: '{}'", first.TypeName());
      return first.IsBool() ? Value(first.AsInt()) : first;
    case Expression::Kind::kAnd:
      return IsTrue(first) ? Evaluate(*node.children[1]) : first;
    case Expression::Kind::kOr:
      return IsTrue(first) ? first : Evaluate(*node.children[1]);
    default:
      break;
  }
  if (IsTrue(first)) return Evaluate(*node.children[1]);
  if (node.children[2] != nullptr) return Evaluate(*node.children[2]);
  return Value::MakeUndefined("the inline if-expression is false and has no else");
}

Interpreter::Result Interpreter::EvaluateItem(const Expression& node) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*node.children[0]));
  RETURN_IF_ERROR(UseUndefined(object));
  if (node.kind == Expression::Kind::kAttribute) return GetAttribute(object, node.name, budget_);
  ASSIGN_OR_RETURN(const Value key, Evaluate(*node.children[1]));
  return GetItem(object, key, budget_);
}

Interpreter::Result Interpreter::EvaluateSlice(const Expression& node) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*node.children[0]));
  Value parts[3];
  for (int i = 0; i < 3; ++i) {
    parts[i] = Value::MakeNone();
    if (node.children[i + 1] == nullptr) continue;
    ASSIGN_OR_RETURN(parts[i], Evaluate(*node.children[i + 1]));
  }
  return Slice(object, parts[0], parts[1], parts[2], budget_);
}

Interpreter::Result Interpreter::EvaluateList(const Expression& node) {
  std::vector<Value> items;
  for (const ExpressionPtr& child : node.children) {
    ASSIGN_OR_RETURN(Value item, Evaluate(*child));
    items.push_back(std::move(item));
  }
  const bool tuple = node.kind == Expression::Kind::kTuple;
  return MakeList(tuple ? List::Kind::kTuple : List::Kind::kList, std::move(items), budget_);
}

Interpreter::Result Interpreter::EvaluateDict(const Expression& node) {
  auto dict = std::make_shared<Dict>(budget_);
  for (size_t i = 0; i < node.children.size(); i += 2) {
    ASSIGN_OR_RETURN(const Value key, Evaluate(*node.children[i]));
    ASSIGN_OR_RETURN(Value value, Evaluate(*node.children[i + 1]));
    if (!dict->Set(key, std::move(value)))
      return Fail("a '{}' cannot be a key here", key.TypeName());
  }
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

Interpreter::Result Interpreter::EvaluateConcat(const Expression& node) {
  std::string text;
  for (const ExpressionPtr& child : node.children) {
    ASSIGN_OR_RETURN(const Value value, Evaluate(*child));
    ASSIGN_OR_RETURN(const std::string part, ToText(value));
    text += part;
  }
  return Value::MakeText(std::move(text), budget_);
}

Interpreter::Result Interpreter::EvaluateCompare(const Expression& node) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*node.children[0]));
  for (size_t i = 0; i < node.operators.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Evaluate(*node.children[i + 1]));
    ASSIGN_OR_RETURN(const bool holds, Compare(node.operators[i], left, right, budget_));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Args> Interpreter::EvaluateArguments(const Expression& node) {
  Args args;
  for (const ExpressionPtr& argument : node.arguments) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*argument));
    args.positional.push_back(std::move(value));
  }
  for (const auto& [name, argument] : node.named_arguments) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*argument));
    args.named.emplace_back(name, std::move(value));
  }
  return args;
}

Interpreter::Result Interpreter::EvaluateCall(const Expression& node) {
  const Expression& target = *node.children[0];
  Value callee;
  if (target.kind == Expression::Kind::kAttribute) {
    ASSIGN_OR_RETURN(const Value object, Evaluate(*target.children[0]));
    RETURN_IF_ERROR(UseUndefined(object));
    if (HasMethod(object, target.name)) {
      ASSIGN_OR_RETURN(const Args args, EvaluateArguments(node));
      return CallMethod(object, target.name, args, budget_);
    }
    callee = GetAttribute(object, target.name, budget_);
  } else {
    ASSIGN_OR_RETURN(callee, Evaluate(target));
  }
  ASSIGN_OR_RETURN(const Args args, EvaluateArguments(node));
  RETURN_IF_ERROR(UseUndefined(callee));
  if (callee.callable() == nullptr) return Fail("'{}' is not a function", callee.TypeName());
  return callee.callable()->call(args);
}

Interpreter::Result Interpreter::EvaluateTest(const Expression& node) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
  ASSIGN_OR_RETURN(const Args args, EvaluateArguments(node));
  ASSIGN_OR_RETURN(const bool holds, node.test(value, args, budget_));
  return Value(holds);
}

Interpreter::Result Interpreter::EvaluateFilter(const Expression& node, const Value& value) {
  ASSIGN_OR_RETURN(const Args args, EvaluateArguments(node));
  return node.filter(value, args, budget_);
}

}  // namespace hgrn2::chat
