// The instruction sets that kernels use.
#pragma once

#include <string>

namespace hgrn2::cpu {

// Whether the bfloat16 dot-product kernels run here: AVX512_BF16, and AVX-512 not disabled for
// tests by hwy::SetSupportedTargetsForTest.
bool HasBf16DotProducts();

// The instruction set the kernels use: "avx512_bf16", "avx512", "avx2", "sse4", "neon", "portable".
std::string IsaName();

}  // namespace hgrn2::cpu
