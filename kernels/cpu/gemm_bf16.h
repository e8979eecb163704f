// The AVX512_BF16 register kernels behind Gemm. Not compiled for other machines.
#pragma once

#include "kernels/cpu/gemm.h"

namespace hgrn2::cpu {
// REQUIRES: HasBf16DotProducts(), bfloat16 weights and activations.
void GemmAvx512Bf16(const GemmParams& params);
}  // namespace hgrn2::cpu
