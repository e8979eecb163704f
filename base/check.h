// HGRN2_CHECK: aborts with file, line and a message when an invariant of ours is broken. Never for
// data from outside.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace hgrn2 {
[[noreturn]] inline void CheckFailed(const char* file, int line, const char* expr,
                                     std::string_view context) {
  std::fprintf(stderr, "%s:%d: check failed: %s %.*s\n", file, line, expr,
               static_cast<int>(context.size()), context.data());
  std::abort();
}
// Not a defaulted argument: "" instead of a null view keeps printf's checks quiet.
inline std::string_view CheckContext() { return ""; }
inline std::string_view CheckContext(std::string_view context) { return context; }
}  // namespace hgrn2

// The optional second argument is a string_view (or literal, or string) with context.
#define HGRN2_CHECK(expr, ...)                                                             \
  do {                                                                                     \
    if (!(expr)) [[unlikely]]                                                              \
      ::hgrn2::CheckFailed(__FILE__, __LINE__, #expr, ::hgrn2::CheckContext(__VA_ARGS__)); \
  } while (false)
