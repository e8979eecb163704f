#pragma once

#include <cstdint>

namespace hgrn2::chat {

// Of lists and dicts: whoever walks them, and their destructors, may recurse.
inline constexpr int32_t kMaxValueDepth = 100;

}  // namespace hgrn2::chat
