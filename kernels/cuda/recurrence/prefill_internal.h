// What the prefill kernels share with their planner.
#pragma once

#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda {

// Head dims are padded to one of these in the chunked kernel and its workspace.
constexpr int32_t PaddedHeadDim(int32_t head_dim) {
  return head_dim <= 32 ? 32 : head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256;
}
// Columns of V per block of the chunked kernel.
constexpr int32_t PrefillValueTile(int32_t padded_head_dim) {
  return padded_head_dim == 256 ? 64 : padded_head_dim;
}
// An FP8 row's scale needs the whole row, which no single block has: the final state goes through
// the workspace in float32 [H][K][V].
constexpr bool FinalStateDetour(int32_t head_dim, DType activation, DType state_dtype) {
  return state_dtype == DType::kF8E4M3 && (activation == DType::kF32 || head_dim > 128);
}
// Floats per workspace state: the state, then the decay over the item [H][padded K].
constexpr int64_t WorkspaceStride(int32_t num_heads, int32_t head_dim) {
  const int64_t padded = PaddedHeadDim(head_dim);
  return num_heads * (padded * padded + padded);
}

cudaError_t LaunchPrefillChunked(const PrefillParams& params, cudaStream_t stream);
cudaError_t LaunchPrefillRecurrent(const PrefillParams& params, cudaStream_t stream);

}  // namespace hgrn2::cuda
