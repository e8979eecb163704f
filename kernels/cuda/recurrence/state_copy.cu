// Copies of states between the slabs and float32, and the ages of the replay rings. A warp per row
// of S; these run when sequences move, not on the decode path.
#include "kernels/cuda/recurrence/device_math.cuh"
#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxPerLane = 256 / 32;

// Columns lane, lane + 32, ... of a row.
template <typename S>
__device__ __forceinline__ void LoadRow(const S* row, const float* scale, int K, float* x) {
  const float factor = kIsFp8<S> ? *scale : 1.0f;
#pragma unroll
  for (int j = 0; j < kMaxPerLane; ++j) {
    const int v = j * 32 + threadIdx.x % 32;
    x[j] = v < K ? ToFloat(row[v]) * factor : 0.0f;
  }
}

template <typename S>
__device__ __forceinline__ void StoreRow(S* row, float* scale, int K, const float* x) {
  float inverse = 1.0f;
  if constexpr (kIsFp8<S>) {
    float largest = 0;
#pragma unroll
    for (int j = 0; j < kMaxPerLane; ++j) largest = fmaxf(largest, fabsf(x[j]));
    largest = WarpMax(largest);
    inverse = largest > kLeastE4M3Row ? kMaxE4M3 / largest : 0.0f;
    if (threadIdx.x % 32 == 0) *scale = largest / kMaxE4M3;
  }
#pragma unroll
  for (int j = 0; j < kMaxPerLane; ++j) {
    const int v = j * 32 + threadIdx.x % 32;
    if (v < K) row[v] = FromFloat<S>(x[j] * inverse);
  }
}

// keys [n][K]: ring keys decayed to the newest token; inputs [n][K]; decay [K] since S_0.
template <typename A>
__device__ __forceinline__ int LoadRing(const GatherStateParams& p, int slot, int head, float* keys,
                                        float* inputs, float* decay) {
  const int K = p.head_dim, N = p.ring.length;
  int n = 0, x = 0;
  if (N > 1) {
    const int age = p.ring.age[slot];
    x = static_cast<int>((static_cast<uint32_t>(age) + static_cast<uint32_t>(p.ring.phase)) %
                         static_cast<uint32_t>(N));
    n = age < x ? age : x;
  }
  const int64_t slot_head = static_cast<int64_t>(slot) * p.num_heads + head;
  const A* ring = static_cast<const A*>(p.ring.entries) + (slot_head * N + x - n) * 2 * K;
  for (int k = threadIdx.x; k < K; k += kThreads) {
    float product = 1.0f;
    for (int s = n - 1; s >= 0; --s) {
      const Gate gate =
          ForgetGate<kIsFloat<A>>(ToFloat(ring[2 * s * K + k]), p.lower_bound[head * K + k]);
      keys[s * K + k] = gate.k * product;
      inputs[s * K + k] = ToFloat(ring[(2 * s + 1) * K + k]);
      product *= gate.g;
    }
    decay[k] = product;
  }
  return n;
}

template <typename S, typename A>
__global__ void __launch_bounds__(kThreads)
    GatherStateKernel(const __grid_constant__ GatherStateParams p) {
  extern __shared__ float shared[];
  GridDependencyWait();
  const int b = blockIdx.y, head = blockIdx.x, slot = p.slots[b], K = p.head_dim;
  if (slot < 0) return;
  float* decay = shared;
  float* keys = decay + K;
  float* inputs = keys + p.ring.length * K;
  const int n = LoadRing<A>(p, slot, head, keys, inputs, decay);
  if (n == 0 && p.out == nullptr) return;
  __syncthreads();
  const int64_t slot_head = static_cast<int64_t>(slot) * p.num_heads + head;
  S* state = static_cast<S*>(p.state.state) + slot_head * K * K;
  float* scales = kIsFp8<S> ? p.state.scales + slot_head * K : nullptr;
  for (int k = threadIdx.x / 32; k < K; k += kThreads / 32) {
    float x[kMaxPerLane];
    LoadRow(state + k * K, scales + (kIsFp8<S> ? k : 0), K, x);
#pragma unroll
    for (int j = 0; j < kMaxPerLane; ++j) {
      const int v = j * 32 + threadIdx.x % 32;
      x[j] *= decay[k];
      if (v < K)
        for (int s = 0; s < n; ++s) x[j] = fmaf(keys[s * K + k], inputs[s * K + v], x[j]);
    }
    if (p.out == nullptr) {
      StoreRow(state + k * K, scales + (kIsFp8<S> ? k : 0), K, x);
    } else {
      float* out = p.out + ((static_cast<int64_t>(b) * p.num_heads + head) * K + k) * K;
      float unused = 1.0f;
      StoreRow(out, &unused, K, x);
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads)
    ScatterStateKernel(const __grid_constant__ ScatterStateParams p) {
  GridDependencyWait();
  const int b = blockIdx.y, head = blockIdx.x, slot = p.slots[b], K = p.head_dim;
  if (slot < 0) return;
  const int64_t slot_head = static_cast<int64_t>(slot) * p.num_heads + head;
  S* state = static_cast<S*>(p.state.state) + slot_head * K * K;
  float* scales = kIsFp8<S> ? p.state.scales + slot_head * K : nullptr;
  const float* in = p.in + (static_cast<int64_t>(b) * p.num_heads + head) * K * K;
  const float one = 1.0f;
  for (int k = threadIdx.x / 32; k < K; k += kThreads / 32) {
    float x[kMaxPerLane];
    LoadRow(in + k * K, &one, K, x);
    StoreRow(state + k * K, scales + (kIsFp8<S> ? k : 0), K, x);
  }
}

__global__ void AdvanceAgesKernel(AdvanceAgesParams p) {
  GridDependencyWait();
  const int b = blockIdx.x * blockDim.x + threadIdx.x;
  if (b >= p.batch || p.slots[b] < 0) return;
  int32_t* age = p.age + p.slots[b];
  *age = p.written != nullptr && p.written[b] != 0 ? 0 : *age + 1;
}

template <typename S, typename A>
cudaError_t Gather(const GatherStateParams& p, cudaStream_t stream) {
  const size_t bytes = sizeof(float) * p.head_dim * (1 + 2 * p.ring.length);
  const auto kernel = GatherStateKernel<S, A>;
  if (bytes > 48 * 1024) HGRN2_CUDA_RETURN_IF_ERROR(AllowMostSharedMemory(kernel));
  return Launch(kernel, dim3(p.num_heads, p.batch), dim3(kThreads), bytes, stream, false, p);
}

template <typename S>
cudaError_t GatherAny(const GatherStateParams& p, cudaStream_t stream) {
  if (p.activation == DType::kBF16) return Gather<S, __nv_bfloat16>(p, stream);
  if (p.activation == DType::kF32) return Gather<S, float>(p, stream);
  return cudaErrorInvalidValue;
}

template <typename S>
cudaError_t Scatter(const ScatterStateParams& p, cudaStream_t stream) {
  return Launch(ScatterStateKernel<S>, dim3(p.num_heads, p.batch), dim3(kThreads), 0, stream, false,
                p);
}

template <typename P>
bool ValidShape(const P& p) {
  return p.batch > 0 && p.batch <= 65535 && p.num_heads > 0 && p.head_dim >= 16 &&
         p.head_dim <= 256 && p.head_dim % 16 == 0 &&
         (p.state.dtype != DType::kF8E4M3 || p.state.scales != nullptr);
}

}  // namespace

cudaError_t LaunchGatherState(const GatherStateParams& p, cudaStream_t stream) {
  if (p.batch == 0) return cudaSuccess;
  GatherStateParams q = p;
  if (q.ring.length <= 1) q.ring.length = 1;
  if (!ValidShape(q) || q.ring.length > kMaxReplay || q.ring.phase < 0)
    return cudaErrorInvalidValue;
  switch (q.state.dtype) {
    case DType::kF32:
      return GatherAny<float>(q, stream);
    case DType::kF16:
      return GatherAny<__half>(q, stream);
    case DType::kBF16:
      return GatherAny<__nv_bfloat16>(q, stream);
    case DType::kF8E4M3:
      return GatherAny<__nv_fp8_e4m3>(q, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t LaunchScatterState(const ScatterStateParams& p, cudaStream_t stream) {
  if (p.batch == 0) return cudaSuccess;
  if (!ValidShape(p)) return cudaErrorInvalidValue;
  switch (p.state.dtype) {
    case DType::kF32:
      return Scatter<float>(p, stream);
    case DType::kF16:
      return Scatter<__half>(p, stream);
    case DType::kBF16:
      return Scatter<__nv_bfloat16>(p, stream);
    case DType::kF8E4M3:
      return Scatter<__nv_fp8_e4m3>(p, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t LaunchAdvanceAges(const AdvanceAgesParams& p, cudaStream_t stream) {
  if (p.batch == 0) return cudaSuccess;
  return Launch(AdvanceAgesKernel, dim3(static_cast<unsigned>(CeilDiv(p.batch, 128))), dim3(128), 0,
                stream, false, p);
}

}  // namespace hgrn2::cuda
