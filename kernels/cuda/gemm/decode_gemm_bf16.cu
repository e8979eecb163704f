#include "kernels/cuda/gemm/decode_gemm_kernel.cuh"

namespace hgrn2::cuda::gemm {

template <>
Kernel KernelFor<false>(const DecodeGemmShape& s, GemmEpilogue epilogue) {
  return s.groups == 1 ? KernelOf<1, false>(s.row_tile, s.split, epilogue)
                       : KernelOf<2, false>(s.row_tile, s.split, epilogue);
}

}  // namespace hgrn2::cuda::gemm
