// Replay decode on Hopper: docs/kernels/replay.md.
#include <algorithm>

#include "kernels/cuda/recurrence/replay_math.cuh"
#include "kernels/cuda/recurrence/replay_step.h"

namespace hgrn2::cuda::replay {
namespace {

constexpr int kMostBlocks = 3;  // per multiprocessor
constexpr int kFewItems = 5;    // of a block; see KernelParams

// This thread's column of the output: the warps' sums, and the tokens by their scores.
template <typename S>
__device__ __forceinline__ void WriteOutput(const DecodeStepParams& p, const View<S>& view,
                                            const Item& item, int column, const Scratch& scratch,
                                            int buffer) {
  const int lane = threadIdx.x % 32, n = item.n;
  float sum = 0, score = 0;
  if (item.slot >= 0) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += scratch.partial[buffer][w][column];
    if (lane <= n) {
#pragma unroll
      for (int w = 0; w < kWarps; ++w) score += scratch.scores[buffer][w][lane];
    }
    const __nv_bfloat16* input = view.Inputs(0) + column;
#pragma unroll 4
    for (int token = 0; token <= n; ++token, input -= 2 * kDim)
      sum = fmaf(__shfl_sync(0xffffffffu, score, token), ToFloat(*input), sum);
    sum *= rsqrtf(static_cast<float>(kDim));
  }
  const int d = p.num_heads * kDim;
  const int64_t at = static_cast<int64_t>(item.row) * d + item.head * kDim + column;
  static_cast<__nv_bfloat16*>(p.o)[at] = __float2bfloat16(sum);
  if (p.sum_squares == nullptr) return;
  float square = sum * sum;
#pragma unroll
  for (int offset = kSumSquareGroup / 2; offset > 0; offset /= 2)
    square += __shfl_xor_sync(0xffffffffu, square, offset);
  if (column % kSumSquareGroup == 0) p.sum_squares[at / kSumSquareGroup] = square;
}

// One of the consuming warps: its rows of all items of the block; kClaimed: until there are no
// more.
template <typename S, bool kClaimed>
__device__ __forceinline__ void Consume(const KernelParams& params, char* stages,
                                        const BarrierAddresses& barriers, Scratch& scratch,
                                        int items) {
  const DecodeStepParams& p = params.p;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row0 = warp * kRows,
            channel = row0 + lane;
  const int length = p.ring.length, stage_bytes = Stage<S>::Bytes(length);
  float* keys = reinterpret_cast<float*>(&scratch + 1) + warp * Scratch::KeyWords(length);
  StageCursor at;
  int buffer = 0;
#pragma unroll 1
  for (int i = 0; kClaimed || i < items; ++i) {
    char* stage = stages + at.stage * stage_bytes;
    const BarrierAddresses bar = barriers.At(at.stage);
    MbarrierWait(bar.token, at.parity);
    const Item item = *reinterpret_cast<const Item*>(stage + Stage<S>::kItem);
    if (kClaimed && item.row < 0) return;
    const View<S> view(stage, item.n);
    if (item.slot >= 0) {
      const int64_t slot_head = static_cast<int64_t>(item.slot) * p.num_heads + item.head;
      if (!item.fold) {
        auto* entry = static_cast<__nv_bfloat16*>(p.ring.entries) +
                      (slot_head * length + item.x) * 2 * kDim + channel;
        entry[0] = view.Forgets(0)[channel], entry[kDim] = view.Inputs(0)[channel];
      }
      const Decayed factors = Gates(view, item, channel, scratch.q[warp], keys);
      const Weights weights = WeightsOf<S>(factors.weight);
      __syncwarp();
      ScoreKeys(scratch.q[warp], keys, item.n, scratch.scores[buffer][warp]);
      float* partial = scratch.partial[buffer][warp];
      MbarrierWait(bar.state, at.parity);
      if (item.reset) {
        reinterpret_cast<float4*>(partial)[lane] = {0, 0, 0, 0};
      } else {
        MultiplyState(SharedAddress(stage), row0, weights, partial, S());
      }
      if (item.fold) {
        __syncwarp();  // the state is rebuilt in place
        Fold(view, item, row0, factors.decay, keys,
             static_cast<S*>(p.state.state) + slot_head * kDim * kDim,
             kIsFp8<S> ? p.state.scales + slot_head * kDim : nullptr);
      }
    } else {
      MbarrierWait(bar.state, at.parity);  // empty, but no phase may go by unseen
    }
    ConsumerSync();  // the other buffer's readers have arrived here too: one barrier per item is
                     // enough
    WriteOutput(p, view, item, channel, scratch, buffer);
    __syncwarp();
    if (kClaimed || lane == 0) MbarrierArrive(bar.empty);
    at.Advance(params.stages);
    buffer ^= 1;
  }
}

template <typename S, bool kClaimed>
__global__ void __launch_bounds__(kThreads, kMostBlocks)
    ReplayKernel(const __grid_constant__ KernelParams params,
                 const __grid_constant__ CUtensorMap map) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(1024) char stages[];
  const int length = params.p.ring.length;
  char* after = stages + params.stages * Stage<S>::Bytes(length);
  Scratch& scratch = *reinterpret_cast<Scratch*>(after);
  Barriers& barriers = *reinterpret_cast<Barriers*>(after + Scratch::Bytes(length));
  const BarrierAddresses addresses = {SharedAddress(barriers.token), SharedAddress(barriers.state),
                                      SharedAddress(barriers.empty)};
  if (threadIdx.x == 0) {
    for (int i = 0; i < params.stages; ++i) {
      const BarrierAddresses bar = addresses.At(i);
      MbarrierInit(bar.token, 1);
      MbarrierInit(bar.state, 1);
      // Of claimed items every lane, for racecheck, which does not follow the warp's barrier.
      MbarrierInit(bar.empty, kClaimed ? kConsumers : kWarps);
    }
    MbarrierInitFence();
  }
  __syncthreads();
  const int total = params.p.batch * params.p.num_heads;
  const int items = (total - static_cast<int>(blockIdx.x) + gridDim.x - 1) / gridDim.x;
  if (threadIdx.x / 32 != kWarps) {
    Consume<S, kClaimed>(params, stages, addresses, scratch, items);
  } else if constexpr (kClaimed) {
    ProduceClaimed<S>(params, map, stages, addresses);
  } else {
    Produce<S>(params, map, stages, addresses, items);
  }
#else
  (void)map;
#endif
}

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                 const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                 const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

EncodeTiled FindEncoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                       cudaEnableDefault, &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  return reinterpret_cast<EncodeTiled>(function);
}
EncodeTiled Encoder() {
  static const EncodeTiled encoder = FindEncoder();
  return encoder;
}

// All states of a slab as one matrix of rows of 128 columns, fetched 128 rows by 128 bytes at a
// time. The number of slots does not matter here: no box is asked for beyond them.
template <typename S>
bool MakeMap(void* states, CUtensorMap* map) {
  const cuuint64_t sizes[2] = {kDim, uint64_t{1} << 31};
  const cuuint64_t strides[1] = {kDim * sizeof(S)};
  const cuuint32_t box[2] = {Stage<S>::kBoxColumns, kDim}, steps[2] = {1, 1};
  return Encoder()(map,
                   sizeof(S) == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16,
                   2, states, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                   CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// Whether the driver runs code that was compiled for sm_90 or later.
bool IsCompiledForDevice() {
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, ReplayKernel<__half, false>) == cudaSuccess)
    return attributes.ptxVersion >= 90;
  cudaGetLastError();
  return false;
}

// Blocks per multiprocessor and stages per block.
struct Residence {
  int blocks = 0, stages = 0, shared_bytes = 0;
};
cudaError_t ChooseResidence(int length, int stage_bytes, Residence* out) {
  int capacity = 0, reserved = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(
      DeviceAttribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, &capacity));
  HGRN2_CUDA_RETURN_IF_ERROR(DeviceAttribute(cudaDevAttrReservedSharedMemoryPerBlock, &reserved));
  const int fixed = Scratch::Bytes(length) + static_cast<int>(sizeof(Barriers));
  for (int blocks = kMostBlocks; blocks > 0; --blocks) {
    const int stages = std::min((capacity / blocks - reserved - fixed) / stage_bytes, kMaxStages);
    if (stages < 2) continue;  // one to work on while another arrives
    *out = {blocks, stages, fixed + stages * stage_bytes};
    return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

template <typename S>
cudaError_t LaunchKernel(const DecodeStepParams& p, cudaStream_t stream) {
  CUtensorMap map;
  if (!MakeMap<S>(p.state.state, &map)) return cudaErrorInvalidValue;
  int processors = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(DeviceAttribute(cudaDevAttrMultiProcessorCount, &processors));
  Residence residence;
  HGRN2_CUDA_RETURN_IF_ERROR(
      ChooseResidence(p.ring.length, Stage<S>::Bytes(p.ring.length), &residence));
  const bool claimed = p.work_counters != nullptr;
  const auto kernel = claimed ? ReplayKernel<S, true> : ReplayKernel<S, false>;
  HGRN2_CUDA_RETURN_IF_ERROR(AllowMostSharedMemory(kernel));
  const int items = p.batch * p.num_heads, grid = std::min(items, residence.blocks * processors);
  const int items_per_block = static_cast<int>(CeilDiv(items, grid));
  KernelParams params;
  params.p = p;
  params.stages = residence.stages;
  params.folds_first = items_per_block <= kFewItems;
  params.evict_first = items_per_block <= 4 * kFewItems;
  if (claimed) {
    const int late = std::min(p.late_processors, processors) * residence.blocks;
    params.lists = std::max(grid - late, 0);
    // Two thirds of an equal share: what is left evens out the end.
    params.list_items = std::min(items_per_block, residence.stages);
    if (late > 0) params.list_items = std::max(params.list_items, items_per_block * 2 / 3);
    params.list_items = std::min(params.list_items, 32);
  }
  return cuda::Launch(kernel, dim3(grid), dim3(kThreads), residence.shared_bytes, stream,
                      p.programmatic, params, map);
}

}  // namespace

bool Serves(const DecodeStepParams& p) {
  return p.ring.length > 1 && p.head_dim == kDim && p.state.dtype != DType::kF32 &&
         p.activation == DType::kBF16 && reinterpret_cast<uintptr_t>(p.state.state) % 16 == 0 &&
         Encoder() != nullptr && IsCompiledForDevice();
}

cudaError_t Launch(const DecodeStepParams& p, cudaStream_t stream) {
  switch (p.state.dtype) {
    case DType::kF16:
      return LaunchKernel<__half>(p, stream);
    case DType::kBF16:
      return LaunchKernel<__nv_bfloat16>(p, stream);
    case DType::kF8E4M3:
      return LaunchKernel<__nv_fp8_e4m3>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hgrn2::cuda::replay
