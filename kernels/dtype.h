// Element types of tensors in files, memory and on devices. No dependencies: kernels include this.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hgrn2 {

enum class DType : uint8_t { kF32 = 0, kF16 = 1, kBF16 = 2, kF8E4M3 = 3 };

constexpr size_t SizeOf(DType t) {
  return t == DType::kF32 ? 4 : t == DType::kF8E4M3 ? 1 : 2;
}

// "float32", "float16", "bfloat16", "fp8": the spelling of flags and of GetModel.
constexpr const char* Name(DType t) {
  switch (t) {
    case DType::kF32: return "float32";
    case DType::kF16: return "float16";
    case DType::kBF16: return "bfloat16";
    case DType::kF8E4M3: return "fp8";
  }
  return "?";
}

}  // namespace hgrn2
