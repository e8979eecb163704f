#include "kernels/cpu/cpu_info.h"

#include "hwy/highway.h"

namespace hgrn2::cpu {

bool HasBf16DotProducts() {
#if HGRN2_AVX512_BF16
  __builtin_cpu_init();
  return (hwy::SupportedTargets() & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

std::string IsaName() {
  if (HasBf16DotProducts()) return "avx512_bf16";
  const int64_t targets = hwy::SupportedTargets();
#if HWY_ARCH_X86
  if (targets & HWY_AVX3) return "avx512";
  if (targets & HWY_AVX2) return "avx2";
  if (targets & HWY_SSE4) return "sse4";
#elif HWY_ARCH_ARM
  if (targets & HWY_NEON) return "neon";
#endif
  (void)targets;
  return "portable";
}

}  // namespace hgrn2::cpu
