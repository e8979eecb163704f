// Chooses the prefill kernel, and rounds final states that came through the workspace.
#include "kernels/cuda/recurrence/device_math.cuh"
#include "kernels/cuda/recurrence/prefill_internal.h"

namespace hgrn2::cuda {
namespace {

// FinalStateDetour: float32 [H][K][V] in the workspace -> FP8 rows with their scales; a warp per
// row.
__global__ void __launch_bounds__(256)
    StoreFp8StatesKernel(const __grid_constant__ PrefillParams p) {
  GridDependencyWait();
  const PrefillItem item = p.items[blockIdx.y];
  if (item.num_tokens == 0 || item.token_begin + item.num_tokens != item.sequence_end) return;
  const int K = p.head_dim, head = blockIdx.x, lane = threadIdx.x % 32;
  const int64_t slot_head = static_cast<int64_t>(item.slot) * p.num_heads + head;
  const float* from = static_cast<const float*>(p.workspace) +
                      item.workspace * WorkspaceStride(p.num_heads, K) +
                      static_cast<int64_t>(head) * K * K;
  auto* to = static_cast<__nv_fp8_e4m3*>(p.state.state) + slot_head * K * K;
  for (int k = threadIdx.x / 32; k < K; k += 8) {
    float largest = 0;
    for (int v = lane; v < K; v += 32) largest = fmaxf(largest, fabsf(from[k * K + v]));
    largest = WarpMax(largest);
    const float inverse = largest > kLeastE4M3Row ? kMaxE4M3 / largest : 0.0f;
    if (lane == 0) p.state.scales[slot_head * K + k] = largest / kMaxE4M3;
    for (int v = lane; v < K; v += 32)
      to[k * K + v] = FromFloat<__nv_fp8_e4m3>(from[k * K + v] * inverse);
  }
}

}  // namespace

cudaError_t LaunchPrefill(const PrefillParams& p, cudaStream_t stream) {
  if (p.num_items == 0) return cudaSuccess;
  const bool detour = FinalStateDetour(p.head_dim, p.activation, p.state.dtype);
  if (p.num_items < 0 || p.num_items > 65535 || p.num_heads <= 0 || p.head_dim < 16 ||
      p.head_dim > 256 || p.head_dim % 16 != 0 || p.items == nullptr ||
      (p.sum_squares != nullptr && p.head_dim % kSumSquareGroup != 0) ||
      (p.state.dtype == DType::kF8E4M3 && p.state.scales == nullptr) ||
      ((detour || p.has_long_sequences) && p.workspace == nullptr))
    return cudaErrorInvalidValue;
  if (p.activation == DType::kBF16)
    HGRN2_CUDA_RETURN_IF_ERROR(LaunchPrefillChunked(p, stream));
  else if (p.activation == DType::kF32)
    HGRN2_CUDA_RETURN_IF_ERROR(LaunchPrefillRecurrent(p, stream));
  else
    return cudaErrorInvalidValue;
  if (!detour) return cudaSuccess;
  return Launch(StoreFp8StatesKernel, dim3(p.num_heads, p.num_items), dim3(256), 0, stream, false,
                p);
}

}  // namespace hgrn2::cuda
