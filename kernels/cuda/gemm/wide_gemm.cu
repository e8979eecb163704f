// Instances of the wide kernel.
#include "kernels/cuda/gemm/wide_gemm_kernel.cuh"

namespace hgrn2::cuda::gemm {
namespace {

template <bool kFp8>
Kernel KernelOf(const DecodeGemmShape& s, GemmEpilogue epilogue) {
  switch (s.row_tile) {
    case 128:
      return s.together ? WideKernelOf<128, true, kFp8>(epilogue)
                        : WideKernelOf<128, false, kFp8>(epilogue);
    case 192:
      return s.together ? WideKernelOf<192, true, kFp8>(epilogue)
                        : WideKernelOf<192, false, kFp8>(epilogue);
  }
  return nullptr;
}

}  // namespace

Kernel WideKernelFor(bool fp8, const DecodeGemmShape& shape, GemmEpilogue epilogue) {
  return fp8 ? KernelOf<true>(shape, epilogue) : KernelOf<false>(shape, epilogue);
}

}  // namespace hgrn2::cuda::gemm
