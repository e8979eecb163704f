#pragma once

namespace hgrn2 {

// "0.1.0": the project's version.
const char* ServerVersion();

}  // namespace hgrn2
