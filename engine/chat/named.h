// Tables of what templates call by name.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string_view>

namespace hgrn2::chat {

template <typename Function>
struct Named {
  std::string_view name;
  Function function;
};

// Null if there is none of that name.
template <typename Function, size_t kSize>
Function FindNamed(const Named<Function> (&table)[kSize], std::string_view name) {
  const auto* const at =
      std::find_if(std::begin(table), std::end(table),
                   [&](const Named<Function>& entry) { return entry.name == name; });
  return at == std::end(table) ? nullptr : at->function;
}

}  // namespace hgrn2::chat
