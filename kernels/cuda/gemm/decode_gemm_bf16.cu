#include "kernels/cuda/gemm/decode_gemm_kernel.cuh"

namespace hgrn2::cuda::gemm {

template <>
Kernel KernelFor<false>(int groups, int row_tile) {
  return groups == 1 ? KernelOfGroups<1, false>(row_tile) : KernelOfGroups<2, false>(row_tile);
}

}  // namespace hgrn2::cuda::gemm
