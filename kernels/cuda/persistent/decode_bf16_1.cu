#include "kernels/cuda/persistent/decode_kernel.cuh"

namespace hgrn2::cuda::persistent {

template <>
cudaError_t LaunchTiles<false, 1>(const DecodeParams& params, cudaStream_t stream) {
  return LaunchState<Tiling<1, 24>, false>(params, stream);
}

}  // namespace hgrn2::cuda::persistent
