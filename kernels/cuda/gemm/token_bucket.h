// Sizes that products are padded to. No CUDA headers: pure host code includes this.
#pragma once

#include <cstdint>

namespace hgrn2::cuda {

// Tokens of a product are rounded up to this many rows: inputs and outputs must have room for them;
// rows past the real ones are computed from whatever is there and never read.
int64_t GemmTokenBucket(int64_t tokens);

}  // namespace hgrn2::cuda
