#include "kernels/cuda/persistent/decode_kernel.cuh"

namespace hgrn2::cuda::persistent {

template <>
cudaError_t LaunchTiles<true, 4>(const DecodeParams& params, cudaStream_t stream) {
  return LaunchState<Tiling<4, 8>, true>(params, stream);
}

}  // namespace hgrn2::cuda::persistent
