// Python's operators, truth, iteration and conversions to text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat/value.h"

namespace hgrn2::chat {

bool IsTrue(const Value& value);
bool AreEqual(const Value& a, const Value& b);
// a < b; an error if the types have no order.
absl::StatusOr<bool> IsLess(const Value& a, const Value& b);
// "==", "!=", "<", "<=", ">", ">=", "in", "not in".
absl::StatusOr<bool> Compare(std::string_view op, const Value& a, const Value& b, Budget* budget);
// "+", "-", "*", "/", "//", "%", "**".
absl::StatusOr<Value> Arithmetic(std::string_view op, const Value& a, const Value& b,
                                 Budget* budget);
absl::StatusOr<Value> Negate(const Value& value);
absl::StatusOr<Value> Slice(const Value& value, const Value& start, const Value& stop,
                            const Value& step, Budget* budget);

// What a for loop goes through. Spends generators.
absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Budget* budget);
absl::StatusOr<int64_t> Length(const Value& value);

// str(value).
absl::StatusOr<std::string> ToText(const Value& value);
// repr(value).
absl::StatusOr<std::string> ToRepr(const Value& value);
absl::Status UseUndefined(const Value& value);
// The index that a bool or int is, or an error that names `what`.
absl::StatusOr<int64_t> ToInt(const Value& value, std::string_view what);

}  // namespace hgrn2::chat
