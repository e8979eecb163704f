#include "kernels/cuda/gemm/decode_gemm_kernel.cuh"

namespace hgrn2::cuda::gemm {

template <>
Kernel KernelFor<true>(const DecodeGemmShape& s, GemmEpilogue epilogue) {
  switch (s.groups) {
    case 1:
      return KernelOf<1, true>(s, epilogue);
    case 2:
      return KernelOf<2, true>(s, epilogue);
  }
  return nullptr;
}

}  // namespace hgrn2::cuda::gemm
