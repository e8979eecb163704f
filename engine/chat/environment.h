// What templates find without defining it: attributes and items of values, and global functions.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/value.h"

namespace hgrn2::chat {

// value.name: a method or an attribute, else an item. Undefined if there is neither.
Value GetAttribute(const Value& value, const std::string& name, Budget* budget);
// value[key]: an item, else (for text keys) a method or an attribute. Undefined if there is none.
Value GetItem(const Value& value, const Value& key, Budget* budget);

// range, dict, namespace, raise_exception, strftime_now. Namespaces are added to `*namespaces`,
// whose owner clears them in the end: they may refer to themselves.
using Namespaces = std::vector<std::shared_ptr<Namespace>>;
bool IsGlobal(std::string_view name);
Value GetGlobal(std::string_view name, Budget* budget, Namespaces* namespaces);

// Payload of the status that raise_exception makes: its message goes out as it is.
inline constexpr const char kRaisedPayload[] = "hgrn2/chat_raised";

}  // namespace hgrn2::chat
