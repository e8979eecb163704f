#include "kernels/cuda/gemm/decode_gemm_kernel.cuh"

namespace hgrn2::cuda::gemm {

template <>
Kernel KernelFor<true>(int groups, int row_tile) {
  return groups == 1 ? KernelOfGroups<1, true>(row_tile) : KernelOfGroups<2, true>(row_tile);
}

}  // namespace hgrn2::cuda::gemm
