#include "kernels/cuda/persistent/decode_kernel.cuh"

namespace hgrn2::cuda::persistent {

template <>
cudaError_t LaunchFlags<true>(const DecodeParams& params, cudaStream_t stream) {
  return LaunchState<FlagTiling, true>(params, stream);
}

}  // namespace hgrn2::cuda::persistent
