// What this process may use of the machine.
#pragma once

#include <cstdint>
#include <string>

namespace hgrn2::cpu {

// CPUs of the affinity mask, limited by the cgroup's quota (v1 and v2). At least 1.
int NumUsableCpus();

// Bytes this process may still allocate: the machine's available memory or what the cgroup leaves,
// whichever is less. 0 if unknown.
int64_t AvailableMemory();

// Whether the bfloat16 dot-product kernels run here: AVX512_BF16, and AVX-512 not disabled for
// tests by hwy::SetSupportedTargetsForTest.
bool HasBf16DotProducts();

// The instruction set the kernels use: "avx512_bf16", "avx512", "avx2", "sse4", "neon", "portable".
std::string IsaName();

}  // namespace hgrn2::cpu
