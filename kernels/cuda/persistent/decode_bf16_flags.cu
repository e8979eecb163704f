#include "kernels/cuda/persistent/decode_kernel.cuh"

namespace hgrn2::cuda::persistent {

template <>
cudaError_t LaunchFlags<false>(const DecodeParams& params, cudaStream_t stream) {
  return LaunchState<FlagTiling, false>(params, stream);
}

}  // namespace hgrn2::cuda::persistent
