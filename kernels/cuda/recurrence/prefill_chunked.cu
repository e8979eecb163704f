// Prefill on tensor cores, bfloat16 in, float32 accumulation. docs/kernels/chunked-prefill.md has
// the maths and the tiling.
//
// The chunk of the recurrence is 16 tokens, the depth of one mma. The state lives transposed in the
// accumulators of the block's warps (a warp owns 16 rows of S^T, that is 16 columns of V): in that
// layout it is, rounded to bfloat16, already the B operand of the next output product. Loads,
// gates and scores work on kBlocks chunks at a time, so that warps meet three times per 64 tokens.
#include "kernels/cuda/recurrence/prefill_walk.cuh"

namespace hgrn2::cuda {
namespace {

using chunked::ChunkShape;
using chunked::ChunkShared;
using chunked::Walk;

template <typename S, int kPaddedK, bool kStateOnly>
__global__ void __launch_bounds__(ChunkShape<kPaddedK>::kThreads, kPaddedK == 256 ? 1 : 2)
    ChunkedKernel(const __grid_constant__ PrefillParams p) {
  extern __shared__ __align__(16) char shared_bytes[];
  constexpr int kTilesOfV = kPaddedK / ChunkShape<kPaddedK>::kValues;
  GridDependencyWait();
  GridDependencyLaunch();  // not sooner: decodes beside it take qfi for written (after_prefill)
  const PrefillItem item = p.items[blockIdx.y];
  if (item.num_tokens == 0) return;
  if (kStateOnly && item.token_begin + item.num_tokens == item.sequence_end) return;
  if (static_cast<int>(blockIdx.x % kTilesOfV) * ChunkShape<kPaddedK>::kValues >= p.head_dim)
    return;
  Walk<S, kPaddedK, kStateOnly> walk(p, item,
                                     *reinterpret_cast<ChunkShared<kPaddedK>*>(shared_bytes),
                                     blockIdx.x / kTilesOfV, blockIdx.x % kTilesOfV);
  walk.Run();
}

// Turns the items' local final states into true ones: S_i = decay_i S_{i-1} + local_i.
template <int kPaddedK>
__global__ void __launch_bounds__(256) ScanItemsKernel(const __grid_constant__ PrefillParams p) {
  using Shape = ChunkShape<kPaddedK>;
  GridDependencyWait();
  PrefillItem item = p.items[blockIdx.y];
  if (item.num_tokens == 0 || item.index != 0 ||
      item.token_begin + item.num_tokens == item.sequence_end)
    return;
  const int64_t stride = WorkspaceStride(p.num_heads, p.head_dim);
  constexpr int kPerHead = kPaddedK * kPaddedK, kPerTile = kPaddedK * Shape::kValues;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const int head = static_cast<int>(at / kPerHead);
  const int element = static_cast<int>(at % kPerTile) / Shape::kThreads;
  const int lane = static_cast<int>(at % Shape::kThreads) % 32;
  const int k = element / 4 * 8 + 2 * (lane % 4) + element % 2;
  float* state = static_cast<float*>(p.workspace) + item.workspace * stride;
  const int64_t decay_at = static_cast<int64_t>(p.num_heads) * kPerHead + head * kPaddedK + k;
  float sum = state[at];
  const int last = (item.sequence_end - item.sequence_begin - 1) / item.num_tokens;  // its index
  for (int i = 1; i < last; ++i) {
    state += stride;
    sum = fmaf(state[decay_at], sum, state[at]);
    state[at] = sum;
  }
}

template <typename S, int kPaddedK>
cudaError_t LaunchPadded(const PrefillParams& p, cudaStream_t stream) {
  using Shape = ChunkShape<kPaddedK>;
  constexpr int kBytes = sizeof(ChunkShared<kPaddedK>);
  const dim3 grid(p.num_heads * (kPaddedK / Shape::kValues), p.num_items);
  const auto states = ChunkedKernel<S, kPaddedK, true>;
  const auto outputs = ChunkedKernel<S, kPaddedK, false>;
  if (p.has_long_sequences) {
    HGRN2_CUDA_RETURN_IF_ERROR(
        cudaFuncSetAttribute(states, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    HGRN2_CUDA_RETURN_IF_ERROR(
        Launch(states, grid, dim3(Shape::kThreads), kBytes, stream, p.programmatic, p));
    HGRN2_CUDA_RETURN_IF_ERROR(Launch(ScanItemsKernel<kPaddedK>,
                                      dim3(p.num_heads * (kPaddedK * kPaddedK / 256), p.num_items),
                                      dim3(256), 0, stream, false, p));
  }
  HGRN2_CUDA_RETURN_IF_ERROR(
      cudaFuncSetAttribute(outputs, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  return Launch(outputs, grid, dim3(Shape::kThreads), kBytes, stream,
                p.programmatic && !p.has_long_sequences, p);
}

template <typename S>
cudaError_t LaunchState(const PrefillParams& p, cudaStream_t stream) {
  switch (PaddedHeadDim(p.head_dim)) {
    case 32:
      return LaunchPadded<S, 32>(p, stream);
    case 64:
      return LaunchPadded<S, 64>(p, stream);
    case 128:
      return LaunchPadded<S, 128>(p, stream);
    default:
      return LaunchPadded<S, 256>(p, stream);
  }
}

}  // namespace

cudaError_t LaunchPrefillChunked(const PrefillParams& p, cudaStream_t stream) {
  switch (p.state.dtype) {
    case DType::kF32:
      return LaunchState<float>(p, stream);
    case DType::kF16:
      return LaunchState<__half>(p, stream);
    case DType::kBF16:
      return LaunchState<__nv_bfloat16>(p, stream);
    case DType::kF8E4M3:
      return LaunchState<__nv_fp8_e4m3>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace hgrn2::cuda
