#pragma once

#include <string>

namespace hgrn2 {

// 16 hexadecimal digits, different for every request of this and any other server process.
std::string MakeRequestId();

}  // namespace hgrn2
