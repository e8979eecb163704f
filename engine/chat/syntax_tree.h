// What the parser makes and the interpreter walks. Immutable once parsed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/chat/filters.h"
#include "engine/chat/tests.h"
#include "engine/chat/value.h"

namespace hgrn2::chat {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kConstant,     // value
    kName,         // name
    kAttribute,    // children[0].name
    kItem,         // children[0][children[1]]
    kSlice,        // children[0][children[1]:children[2]:children[3]], any but the first null
    kCall,         // children[0](arguments)
    kFilter,       // children[0] | name(arguments); null within a {% filter %}
    kTest,         // children[0] is name(arguments)
    kList,         // children
    kTuple,        // children
    kDict,         // children: key, value, key, value
    kNot,          // of one child
    kNegate,       // of one child
    kPlus,         // of one child
    kAnd,          // of two children
    kOr,           // of two children
    kBinary,       // name is the operator, two children
    kConcat,       // children
    kCompare,      // children[0] operators[0] children[1] operators[1] ...
    kConditional,  // children[1] if children[0] else children[2], which may be null
  };
  Kind kind = Kind::kConstant;
  int line = 0;
  int32_t depth = 1;
  std::string name;
  Value value;
  std::vector<ExpressionPtr> children;
  std::vector<ExpressionPtr> arguments;
  std::vector<std::pair<std::string, ExpressionPtr>> named_arguments;
  std::vector<std::string> operators;
  FilterFunction filter = nullptr;
  TestFunction test = nullptr;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Statement {
  enum class Kind {
    kData,      // text
    kOutput,    // expressions
    kIf,        // expressions[i]: bodies[i]; one more body for else
    kFor,       // targets in expressions[0] if expressions[1] (may be null): bodies[0], else [1]
    kSet,       // targets = expressions[0]
    kSetBlock,  // targets[0] = bodies[0], through the filters of expressions[0] (may be null)
    kMacro,     // name(targets = defaults in expressions, null: none): bodies[0]
    kWith,      // targets = expressions: bodies[0]
    kFilter,    // bodies[0] through the filters of expressions[0]
    kScope,     // bodies[0]: {% generation %}
    kBreak,
    kContinue,
  };
  // A name, or (of a namespace) name.attribute.
  struct Target {
    std::string name;
    std::string attribute;
  };
  Kind kind = Kind::kData;
  int line = 0;
  std::string name;
  Value text;
  std::vector<ExpressionPtr> expressions;
  std::vector<Target> targets;
  bool unpack = false;  // several targets take the items of one value
  std::vector<Body> bodies;
};

}  // namespace hgrn2::chat
