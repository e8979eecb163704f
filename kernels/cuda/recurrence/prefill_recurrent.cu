// Prefill in float32: the recurrence itself, token by token, with the state in registers. For
// --dtype float32, where exactness matters and speed does not. docs/kernels/chunked-prefill.md.
//
// A block walks one item for one head and a tile of V columns. kSplit lanes share a column, each
// with kRowsPerLane rows of it.
#include "kernels/cuda/recurrence/device_math.cuh"
#include "kernels/cuda/recurrence/prefill_internal.h"

namespace hgrn2::cuda {
namespace {

constexpr int kRowsPerLane = 32;
constexpr int kColumns = 32;
constexpr int kLaneStride = kRowsPerLane + 4;  // keeps the lanes' 16-byte reads in different banks

template <int kSplit>
inline constexpr int kStage = kSplit == 8 ? 8 : 16;  // tokens staged in shared memory at a time

template <int kSplit>
struct Stage {
  float q[kStage<kSplit>][kSplit * kLaneStride];
  float g[kStage<kSplit>][kSplit * kLaneStride];
  float k[kStage<kSplit>][kSplit * kLaneStride];
  float input[kStage<kSplit>][kColumns];
  float o[kStage<kSplit>][kColumns];
};

template <int kSplit>
__device__ __forceinline__ void LoadStage(const PrefillParams& p, int token, int count, int head,
                                          int column0, Stage<kSplit>& stage) {
  const int K = p.head_dim, d = p.num_heads * K;
  constexpr int kPadded = kSplit * kRowsPerLane;
  const float* qfi = static_cast<const float*>(p.qfi);
  for (int at = threadIdx.x; at < count * kPadded; at += blockDim.x) {
    const int t = at / kPadded, k = at % kPadded;
    const int to = (k / kRowsPerLane) * kLaneStride + k % kRowsPerLane;
    Gate gate = {1.0f, 0.0f};
    float q = 0;
    if (k < K) {
      const float* row = qfi + static_cast<int64_t>(token + t) * 3 * d + head * K + k;
      q = SwishGate<true>(row[0]);
      gate = ForgetGate<true>(row[d], p.lower_bound[head * K + k]);
    }
    stage.q[t][to] = q, stage.g[t][to] = gate.g, stage.k[t][to] = gate.k;
  }
  for (int at = threadIdx.x; at < count * kColumns; at += blockDim.x) {
    const int t = at / kColumns, v = column0 + at % kColumns;
    stage.input[t][at % kColumns] =
        v < K ? qfi[static_cast<int64_t>(token + t) * 3 * d + 2 * d + head * K + v] : 0.0f;
  }
}

__device__ __forceinline__ void StoreStage(const PrefillParams& p, int token, int count, int head,
                                           int column0, const float (*o)[kColumns]) {
  const int K = p.head_dim, d = p.num_heads * K;
  for (int at = threadIdx.x; at < count * kColumns; at += blockDim.x) {  // whole warps: 32 columns
    const int t = at / kColumns, v = column0 + at % kColumns;
    const int64_t to = static_cast<int64_t>(token + t) * d + head * K + v;
    const float x = o[t][at % kColumns];
    if (v < K) static_cast<float*>(p.o)[to] = x;
    if (p.sum_squares == nullptr) continue;
    static_assert(kColumns == kSumSquareGroup && kColumns == 32);
    const float square = WarpSum(x * x);
    if (threadIdx.x % 32 == 0) p.sum_squares[to / kSumSquareGroup] = square;
  }
}

template <typename S, int kSplit>
__global__ void __launch_bounds__(kColumns* kSplit)
    RecurrentKernel(const __grid_constant__ PrefillParams p) {
  __shared__ Stage<kSplit> stage;
  GridDependencyWait();
  GridDependencyLaunch();  // not sooner: decodes beside it take qfi for written (after_prefill)
  const PrefillItem item = p.items[blockIdx.y];
  if (item.num_tokens == 0) return;
  const int K = p.head_dim, tiles = (K + kColumns - 1) / kColumns;
  const int head = blockIdx.x / tiles, column0 = (blockIdx.x % tiles) * kColumns;
  const int column = threadIdx.x / kSplit, part = threadIdx.x % kSplit, v = column0 + column;
  const int64_t slot_head = static_cast<int64_t>(item.slot) * p.num_heads + head;
  S* slab = static_cast<S*>(p.state.state) + slot_head * K * K;

  float state[kRowsPerLane];
#pragma unroll
  for (int r = 0; r < kRowsPerLane; ++r) {
    const int k = part * kRowsPerLane + r;
    state[r] = 0;
    if (!item.reset && k < K && v < K)
      state[r] = ToFloat(slab[k * K + v]) * (kIsFp8<S> ? p.state.scales[slot_head * K + k] : 1.0f);
  }
  const float scale = 1.0f / sqrtf(static_cast<float>(K));
  for (int first = 0; first < item.num_tokens; first += kStage<kSplit>) {
    const int token = item.token_begin + first,
              count = min(kStage<kSplit>, item.num_tokens - first);
    LoadStage<kSplit>(p, token, count, head, column0, stage);
    __syncthreads();
    for (int t = 0; t < count; ++t) {
      const float input = stage.input[t][column];
      float sum = 0;
#pragma unroll
      for (int r = 0; r < kRowsPerLane; r += 4) {
        const int at = part * kLaneStride + r;
        const float4 q = *reinterpret_cast<const float4*>(&stage.q[t][at]);
        const float4 g = *reinterpret_cast<const float4*>(&stage.g[t][at]);
        const float4 k = *reinterpret_cast<const float4*>(&stage.k[t][at]);
        state[r] = fmaf(g.x, state[r], k.x * input);
        state[r + 1] = fmaf(g.y, state[r + 1], k.y * input);
        state[r + 2] = fmaf(g.z, state[r + 2], k.z * input);
        state[r + 3] = fmaf(g.w, state[r + 3], k.w * input);
        sum = fmaf(q.x, state[r], fmaf(q.y, state[r + 1], sum));
        sum = fmaf(q.z, state[r + 2], fmaf(q.w, state[r + 3], sum));
      }
#pragma unroll
      for (int offset = kSplit / 2; offset > 0; offset /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      if (part == 0) stage.o[t][column] = sum * scale;
    }
    __syncthreads();
    StoreStage(p, token, count, head, column0, stage.o);
    __syncthreads();
  }
  float* detour = item.workspace < 0 ? nullptr
                                     : static_cast<float*>(p.workspace) +
                                           item.workspace * WorkspaceStride(p.num_heads, K) +
                                           static_cast<int64_t>(head) * K * K;
#pragma unroll
  for (int r = 0; r < kRowsPerLane; ++r) {
    const int k = part * kRowsPerLane + r;
    if (k >= K || v >= K) continue;
    if (detour != nullptr)
      detour[k * K + v] = state[r];
    else
      slab[k * K + v] = FromFloat<S>(state[r]);
  }
}

template <typename S, int kSplit>
cudaError_t LaunchSplit(const PrefillParams& p, cudaStream_t stream) {
  const unsigned tiles = static_cast<unsigned>(CeilDiv(p.head_dim, kColumns));
  return Launch(RecurrentKernel<S, kSplit>, dim3(p.num_heads * tiles, p.num_items),
                dim3(kColumns * kSplit), 0, stream, p.programmatic, p);
}

template <typename S>
cudaError_t LaunchState(const PrefillParams& p, cudaStream_t stream) {
  switch (PaddedHeadDim(p.head_dim)) {
    case 32:
      return LaunchSplit<S, 1>(p, stream);
    case 64:
      return LaunchSplit<S, 2>(p, stream);
    case 128:
      return LaunchSplit<S, 4>(p, stream);
    default:
      return LaunchSplit<S, 8>(p, stream);
  }
}

}  // namespace

cudaError_t LaunchPrefillRecurrent(const PrefillParams& p, cudaStream_t stream) {
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
