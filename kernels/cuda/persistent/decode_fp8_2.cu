#include "kernels/cuda/persistent/decode_kernel.cuh"

namespace hgrn2::cuda::persistent {

template <>
cudaError_t LaunchTiles<true, 2>(const DecodeParams& params, cudaStream_t stream) {
  return LaunchState<Tiling<2, 16>, true>(params, stream);
}

}  // namespace hgrn2::cuda::persistent
