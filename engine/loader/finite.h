#pragma once

#include <cstdint>

#include "engine/loader/weights.h"

namespace hgrn2 {

// Index of the tensor's first element that is NaN or infinite; -1 if there is none. Reads all of
// it, on every CPU.
int64_t FindNonFinite(const TensorView& tensor);

}  // namespace hgrn2
