#include "kernels/cuda/persistent/decode_kernel.cuh"

namespace hgrn2::cuda::persistent {

template <>
cudaError_t LaunchTiles<true, 1>(const DecodeParams& params, cudaStream_t stream) {
  return LaunchState<Tiling<1, 24>, true>(params, stream);
}

}  // namespace hgrn2::cuda::persistent
