// Short depthwise causal convolution on the fused projections. Bound by bytes; docs/kernels/
// short-conv.md. A thread owns two neighbouring channels (d is even), so that the slot's inputs are
// read and replaced by one thread and need no barrier.
#include "kernels/cuda/recurrence/device_math.cuh"
#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTokensPerBlock = 64;                                       // prefill
static_assert(kTokensPerBlock >= kMaxConvSize && kTokensPerBlock <= 64);  // items: multiples of 64

template <typename A>
__device__ __forceinline__ float2 LoadPair(const A* at);
template <>
__device__ __forceinline__ float2 LoadPair(const float* at) {
  return *reinterpret_cast<const float2*>(at);
}
template <>
__device__ __forceinline__ float2 LoadPair(const __nv_bfloat16* at) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(at));
}
template <typename A>
__device__ __forceinline__ void StorePair(A* at, float2 x);
template <>
__device__ __forceinline__ void StorePair(float* at, float2 x) {
  *reinterpret_cast<float2*>(at) = x;
}
template <>
__device__ __forceinline__ void StorePair(__nv_bfloat16* at, float2 x) {
  *reinterpret_cast<__nv_bfloat162*>(at) = __floats2bfloat162_rn(x.x, x.y);
}

// The newest `taps` inputs of two channels, oldest first, and their weights.
template <typename A>
struct Window {
  float2 input[kMaxConvSize];
  float2 weight[kMaxConvSize];
  int taps;

  __device__ void LoadWeights(const ShortConvParams& p, int channel) {
    taps = p.conv_size;
#pragma unroll
    for (int j = 0; j < kMaxConvSize; ++j) {
      if (j < taps) weight[j] = {p.weight[channel * taps + j], p.weight[(channel + 1) * taps + j]};
      input[j] = {0, 0};
    }
  }
  __device__ void Push(float2 x) {
#pragma unroll
    for (int j = 0; j + 1 < kMaxConvSize; ++j)
      if (j + 1 < taps) input[j] = input[j + 1];
#pragma unroll
    for (int j = 0; j < kMaxConvSize; ++j)
      if (j == taps - 1) input[j] = x;
  }
  __device__ float2 Dot() const {
    float2 sum = {0, 0};
#pragma unroll
    for (int j = 0; j < kMaxConvSize; ++j)
      if (j < taps) {
        sum.x = fmaf(weight[j].x, input[j].x, sum.x);
        sum.y = fmaf(weight[j].y, input[j].y, sum.y);
      }
    return sum;
  }
  // Stored inputs are pushed so that the next Push makes a full window.
  __device__ void LoadState(const A* state, int d) {
#pragma unroll
    for (int j = 0; j + 1 < kMaxConvSize; ++j)
      if (j + 1 < taps) input[j + 1] = LoadPair(state + static_cast<int64_t>(j) * d);
  }
  __device__ void StoreState(A* state, int d) const {
#pragma unroll
    for (int j = 0; j + 1 < kMaxConvSize; ++j)
      if (j + 1 < taps) StorePair(state + static_cast<int64_t>(j) * d, input[j + 1]);
  }
};

// [slots][3][conv_size - 1][d] at (slot, channel of 3d).
template <typename A>
__device__ __forceinline__ A* StateAt(const ShortConvParams& p, int slot, int channel) {
  const int part = channel / p.d;
  return static_cast<A*>(p.state) +
         (static_cast<int64_t>(slot) * 3 + part) * (p.conv_size - 1) * p.d + channel % p.d;
}

template <typename A>
__global__ void __launch_bounds__(kThreads)
    DecodeKernel(const __grid_constant__ ShortConvDecodeParams p) {
  GridDependencyWait();
  const int channel = 2 * (blockIdx.x * kThreads + threadIdx.x), b = blockIdx.y;
  const int slot = p.slots[b];
  if (slot < 0 || channel >= 3 * p.conv.d) return;
  const int row = p.token_rows != nullptr ? p.token_rows[b] : b;
  const int64_t at = static_cast<int64_t>(row) * 3 * p.conv.d + channel;
  A* state = StateAt<A>(p.conv, slot, channel);
  Window<A> window;
  window.LoadWeights(p.conv, channel);
  if (p.reset == nullptr || p.reset[b] == 0) window.LoadState(state, p.conv.d);
  window.Push(LoadPair(static_cast<const A*>(p.conv.x) + at));
  StorePair(static_cast<A*>(p.conv.y) + at, window.Dot());
  window.StoreState(state, p.conv.d);
}

template <typename A>
__global__ void __launch_bounds__(kThreads)
    PrefillKernel(const __grid_constant__ ShortConvPrefillParams p) {
  GridDependencyWait();
  const PrefillItem item = p.items[blockIdx.y];
  const int channel = 2 * (blockIdx.x * kThreads + threadIdx.x);
  if (channel >= 3 * p.conv.d) return;
  const int64_t stride = 3 * p.conv.d;
  const A* x = static_cast<const A*>(p.conv.x) + channel;
  A* y = static_cast<A*>(p.conv.y) + channel;
  Window<A> window;
  window.LoadWeights(p.conv, channel);
  for (int first = blockIdx.z * kTokensPerBlock; first < item.num_tokens;
       first += gridDim.z * kTokensPerBlock) {
    const int begin = item.token_begin + first;
    const int end = min(begin + kTokensPerBlock, item.token_begin + item.num_tokens);
    if (begin == item.sequence_begin) {
      // The only thread that touches this slot's inputs of these channels: reads, then replaces
      // them.
      A* state = StateAt<A>(p.conv, item.slot, channel);
      if (!item.reset) window.LoadState(state, p.conv.d);
      const Window<A> start = window;
      for (int t = max(item.sequence_begin, item.sequence_end - window.taps + 1);
           t < item.sequence_end; ++t)
        window.Push(LoadPair(x + t * stride));
      window.StoreState(state, p.conv.d);
      window = start;
    } else {
      // Tiles and items begin at multiples of kTokensPerBlock >= taps within their sequence.
      for (int t = begin - window.taps + 1; t < begin; ++t) window.Push(LoadPair(x + t * stride));
    }
#pragma unroll 8
    for (int t = begin; t < end; ++t) {
      window.Push(LoadPair(x + t * stride));
      StorePair(y + t * stride, window.Dot());
    }
  }
}

bool Valid(const ShortConvParams& p) {
  return p.conv_size >= 2 && p.conv_size <= kMaxConvSize && p.d > 0 && p.d % 2 == 0;
}

}  // namespace

cudaError_t LaunchShortConvDecode(const ShortConvDecodeParams& p, cudaStream_t stream) {
  if (p.batch == 0) return cudaSuccess;
  if (!Valid(p.conv) || p.batch < 0 || p.batch > 65535) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(CeilDiv(3 * p.conv.d, 2 * kThreads)), p.batch);
  if (p.conv.activation == DType::kBF16)
    return Launch(DecodeKernel<__nv_bfloat16>, grid, dim3(kThreads), 0, stream, false, p);
  if (p.conv.activation == DType::kF32)
    return Launch(DecodeKernel<float>, grid, dim3(kThreads), 0, stream, false, p);
  return cudaErrorInvalidValue;
}

cudaError_t LaunchShortConvPrefill(const ShortConvPrefillParams& p, cudaStream_t stream) {
  if (p.num_items == 0) return cudaSuccess;
  if (!Valid(p.conv) || p.num_items < 0 || p.num_items > 65535 || p.conv.x == p.conv.y)
    return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(CeilDiv(3 * p.conv.d, 2 * kThreads)), p.num_items, 8);
  if (p.conv.activation == DType::kBF16)
    return Launch(PrefillKernel<__nv_bfloat16>, grid, dim3(kThreads), 0, stream, false, p);
  if (p.conv.activation == DType::kF32)
    return Launch(PrefillKernel<float>, grid, dim3(kThreads), 0, stream, false, p);
  return cudaErrorInvalidValue;
}

}  // namespace hgrn2::cuda
