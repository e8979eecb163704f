// One token per sequence: the state step (ring length 1) and replay decode. docs/kernels/state-step.md
// and docs/kernels/replay.md have the maths.
//
// A block owns one (sequence, head, tile of V columns): all K rows of the tile, so the output needs
// no reduction between blocks. Everything that does not depend on the projections in front of this
// kernel (state, ring) is on its way before GridDependencyWait.
#include "kernels/cuda/recurrence/device_math.cuh"
#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda {
namespace {

constexpr int kPrefetch = 8;  // 16-byte state loads in flight per thread

struct KernelParams {
  DecodeStepParams p;
  int32_t tiles;  // V tiles per head
};

// kLanes threads span one row of the tile, 16 bytes each.
template <typename S, int kLanes>
struct StepShape {
  static constexpr int kVec = StateVec<S>::kSize;
  static constexpr int kColumns = kLanes * kVec;
  static constexpr int kThreads = kLanes == 16 ? 256 : 128;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRowsPerPass = kThreads / kLanes;
  static constexpr int kFoldPasses = 16 / kVec;  // bounds the registers of the fold
  static_assert(kLanes <= 32 && 32 % kLanes == 0 && kPrefetch % kFoldPasses == 0);
};

// Views into dynamic shared memory. `length` is N, the ring's.
template <typename S, typename A, int kLanes>
struct StepShared {
  using Shape = StepShape<S, kLanes>;
  A* ring;        // [N][2 (f, i)][K], oldest first; the last entry in use is the current token's i
  float* keys;    // [N][K] decayed to now
  float* q;       // [K]
  float* weight;  // [K] q * decay since S_0 (* FP8 scale)
  float* decay;   // [K] decay since S_0 (* FP8 scale)
  float* score;   // [N]
  float* o;       // [warps][columns]

  static __host__ __device__ size_t Bytes(int length, int K) {
    return static_cast<size_t>(length) * K * (2 * sizeof(A) + sizeof(float)) +
           sizeof(float) * (3 * K + kMaxReplay + Shape::kWarps * Shape::kColumns);
  }
  __device__ StepShared(char* base, int length, int K) {
    ring = reinterpret_cast<A*>(base);
    keys = reinterpret_cast<float*>(ring + static_cast<size_t>(length) * 2 * K);
    q = keys + length * K;
    weight = q + K;
    decay = weight + K;
    score = decay + K;
    o = score + kMaxReplay;
  }
};

__device__ __forceinline__ void CopyAsync16(void* shared, const void* global) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}
__device__ __forceinline__ void CopyAsyncWaitAll() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// Where a sequence stands in its ring.
struct RingCursor {
  int n;      // tokens in the ring
  int x;      // index the current token gets
  bool fold;  // this step writes the state
};

__device__ __forceinline__ RingCursor CursorOf(const ReplayRing& ring, int slot, bool reset) {
  if (ring.length <= 1 || reset) return {0, ring.length <= 1 ? 0 : -1, true};
  const int age = ring.age[slot];
  const int x = static_cast<int>((static_cast<uint32_t>(age) + static_cast<uint32_t>(ring.phase)) %
                                 static_cast<uint32_t>(ring.length));
  return {age < x ? age : x, x, x == ring.length - 1};
}

// Decays the ring's keys to now, newest to oldest, by running products of gates: no division, so a
// gate of zero is no special case. Thread k owns channel k.
template <typename S, typename A, int kLanes>
__device__ __forceinline__ void DecayKeys(const DecodeStepParams& p, int row, int slot, int head,
                                          int n, const StepShared<S, A, kLanes>& shared) {
  constexpr bool kExact = kIsFloat<A>;
  const int K = p.head_dim, d = p.num_heads * K;
  const A* qfi = static_cast<const A*>(p.qfi) + static_cast<int64_t>(row) * 3 * d + head * K;
  for (int k = threadIdx.x; k < K; k += StepShape<S, kLanes>::kThreads) {
    const float bound = p.lower_bound[head * K + k];
    const float scale =
        kIsFp8<S> ? p.state.scales[(static_cast<int64_t>(slot) * p.num_heads + head) * K + k] : 1.0f;
    const float q = SwishGate<kExact>(ToFloat(qfi[k]));
    const Gate now = ForgetGate<kExact>(ToFloat(qfi[d + k]), bound);
    shared.ring[(2 * n + 1) * K + k] = qfi[2 * d + k];
    shared.keys[n * K + k] = now.k;
    float decay = now.g;
    for (int s = n - 1; s >= 0; --s) {
      const Gate past = ForgetGate<kExact>(ToFloat(shared.ring[2 * s * K + k]), bound);
      shared.keys[s * K + k] = past.k * decay;
      decay *= past.g;
    }
    shared.q[k] = q;
    shared.weight[k] = q * decay * scale;
    shared.decay[k] = decay * scale;
  }
}

// score[s] = q . keys[s], a warp per token.
template <typename S, typename A, int kLanes>
__device__ __forceinline__ void ScoreKeys(int n, int K, const StepShared<S, A, kLanes>& shared) {
  const int lane = threadIdx.x % 32;
  for (int s = threadIdx.x / 32; s <= n; s += StepShape<S, kLanes>::kWarps) {
    float sum = 0;
    for (int k = lane; k < K; k += 32) sum = fmaf(shared.q[k], shared.keys[s * K + k], sum);
    sum = WarpSum(sum);
    if (lane == 0) shared.score[s] = sum;
  }
}

// S = diag(decay) S_0 + sum_s keys[s] (x) i[s] for kFoldPasses of this thread's rows, written back.
template <typename S, typename A, int kLanes>
__device__ __forceinline__ void FoldRows(const uint4* raw, int first_row, int column, bool active,
                                         int n, int K, S* state, float* scales,
                                         const StepShared<S, A, kLanes>& shared) {
  using Shape = StepShape<S, kLanes>;
  constexpr int kVec = Shape::kVec, kPasses = Shape::kFoldPasses;
  float sum[kPasses][kVec];
#pragma unroll
  for (int r = 0; r < kPasses; ++r) {
    const int k = first_row + r * Shape::kRowsPerPass;
    const float decay = k < K ? shared.decay[k] : 0.0f;
    StateVec<S>::Unpack(raw[r], sum[r]);
#pragma unroll
    for (int c = 0; c < kVec; ++c) sum[r][c] *= decay;
  }
#pragma unroll 1
  for (int s = 0; s <= n; ++s) {
    float input[kVec];
#pragma unroll
    for (int c = 0; c < kVec; ++c)
      input[c] = active ? ToFloat(shared.ring[(2 * s + 1) * K + column + c]) : 0.0f;
#pragma unroll
    for (int r = 0; r < kPasses; ++r) {
      const int k = first_row + r * Shape::kRowsPerPass;
      const float key = k < K ? shared.keys[s * K + k] : 0.0f;
#pragma unroll
      for (int c = 0; c < kVec; ++c) sum[r][c] = fmaf(key, input[c], sum[r][c]);
    }
  }
#pragma unroll
  for (int r = 0; r < kPasses; ++r) {
    const int k = first_row + r * Shape::kRowsPerPass;
    if constexpr (kIsFp8<S>) {  // a row never crosses blocks, so its scale is known here
      float largest = 0;
#pragma unroll
      for (int c = 0; c < kVec; ++c) largest = fmaxf(largest, fabsf(sum[r][c]));
#pragma unroll
      for (int offset = kLanes / 2; offset > 0; offset /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
      const float inverse = largest > 0 ? kMaxE4M3 / largest : 0.0f;
#pragma unroll
      for (int c = 0; c < kVec; ++c) sum[r][c] *= inverse;
      if (k < K && threadIdx.x % kLanes == 0) scales[k] = largest / kMaxE4M3;
    }
    if (k < K && active)
      __stcs(reinterpret_cast<uint4*>(state + static_cast<int64_t>(k) * K + column),
             StateVec<S>::PackUp(sum[r]));
  }
}

// Adds the warps' partial outputs and the ring's tokens, and writes o and its sums of squares.
template <typename S, typename A, int kLanes>
__device__ __forceinline__ void WriteOutput(const DecodeStepParams& p, int row, int head, int column0,
                                            int n, const StepShared<S, A, kLanes>& shared) {
  using Shape = StepShape<S, kLanes>;
  const int K = p.head_dim, d = p.num_heads * K;
  const float scale = rsqrtf(static_cast<float>(K));
  for (int c = threadIdx.x; c < Shape::kColumns; c += Shape::kThreads) {
    const int v = column0 + c;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) sum += shared.o[w * Shape::kColumns + c];
    if (v < K)
      for (int s = 0; s <= n; ++s)
        sum = fmaf(shared.score[s], ToFloat(shared.ring[(2 * s + 1) * K + v]), sum);
    sum *= scale;
    if (v < K)
      static_cast<A*>(p.o)[static_cast<int64_t>(row) * d + head * K + v] = FromFloat<A>(sum);
    if (p.sum_squares != nullptr) {
      static_assert(Shape::kColumns % 32 == 0, "whole warps reach the shuffles");
      float square = v < K ? sum * sum : 0.0f;
#pragma unroll
      for (int offset = kSumSquareGroup / 2; offset > 0; offset /= 2)
        square += __shfl_xor_sync(0xffffffffu, square, offset);
      if (v < K && v % kSumSquareGroup == 0)
        p.sum_squares[(static_cast<int64_t>(row) * d + head * K + v) / kSumSquareGroup] = square;
    }
  }
}

template <typename S, typename A, int kLanes>
__device__ __forceinline__ void ZeroOutput(const DecodeStepParams& p, int row, int head, int column0) {
  using Shape = StepShape<S, kLanes>;
  const int K = p.head_dim, d = p.num_heads * K;
  for (int c = threadIdx.x; c < Shape::kColumns; c += Shape::kThreads) {
    const int v = column0 + c;
    if (v >= K) return;
    const int64_t at = static_cast<int64_t>(row) * d + head * K + v;
    static_cast<A*>(p.o)[at] = FromFloat<A>(0.0f);
    if (p.sum_squares != nullptr && v % kSumSquareGroup == 0) p.sum_squares[at / kSumSquareGroup] = 0;
  }
}

template <typename S, typename A, int kLanes>
__global__ void __launch_bounds__(StepShape<S, kLanes>::kThreads,
                                  StepShape<S, kLanes>::kThreads == 256 ? 3 : 6)
    DecodeStepKernel(const __grid_constant__ KernelParams params) {
  using Shape = StepShape<S, kLanes>;
  extern __shared__ __align__(16) char shared_bytes[];
  const DecodeStepParams& p = params.p;
  const int K = p.head_dim, N = p.ring.length <= 1 ? 1 : p.ring.length;
  const int b = blockIdx.y, head = blockIdx.x / params.tiles;
  const int column0 = (blockIdx.x % params.tiles) * Shape::kColumns;
  const StepShared<S, A, kLanes> shared(shared_bytes, N, K);

  const int slot = p.slots[b];
  const int row = p.token_rows != nullptr ? p.token_rows[b] : b;
  if (slot < 0) {
    GridDependencyWait();
    ZeroOutput<S, A, kLanes>(p, row, head, column0);
    return;
  }
  const bool reset = p.reset != nullptr && p.reset[b] != 0;
  const RingCursor cursor = CursorOf(p.ring, slot, reset);
  const int n = cursor.n;

  const int64_t slot_head = static_cast<int64_t>(slot) * p.num_heads + head;
  A* ring = static_cast<A*>(p.ring.entries) + slot_head * N * 2 * K;
  if (n > 0) {
    const char* from = reinterpret_cast<const char*>(ring + (cursor.x - n) * 2 * K);
    const int bytes = n * 2 * K * static_cast<int>(sizeof(A));
    for (int at = threadIdx.x * 16; at < bytes; at += Shape::kThreads * 16)
      CopyAsync16(reinterpret_cast<char*>(shared.ring) + at, from + at);
  }

  S* state = static_cast<S*>(p.state.state) + slot_head * K * K;
  const int column = column0 + (threadIdx.x % kLanes) * Shape::kVec;
  const int thread_row = threadIdx.x / kLanes;
  const bool active = column < K;
  uint4 raw[kPrefetch];
  const auto load = [&](int row0) {
#pragma unroll
    for (int r = 0; r < kPrefetch; ++r) {
      const int k = row0 + r * Shape::kRowsPerPass;
      raw[r] = uint4{0, 0, 0, 0};
      if (active && k < K && !reset)
        raw[r] = __ldcs(reinterpret_cast<const uint4*>(state + static_cast<int64_t>(k) * K + column));
    }
  };
  load(thread_row);

  GridDependencyWait();
  GridDependencyLaunch();
  CopyAsyncWaitAll();
  __syncthreads();
  DecayKeys<S, A, kLanes>(p, row, slot, head, n, shared);
  __syncthreads();
  ScoreKeys<S, A, kLanes>(n, K, shared);
  if (!cursor.fold && column0 == 0) {
    const A* qfi = static_cast<const A*>(p.qfi) + static_cast<int64_t>(row) * 3 * p.num_heads * K;
    for (int k = threadIdx.x; k < 2 * K; k += Shape::kThreads)
      ring[cursor.x * 2 * K + k] =
          qfi[(k < K ? 1 : 2) * p.num_heads * K + head * K + (k < K ? k : k - K)];
  }

  float* scales = kIsFp8<S> ? p.state.scales + slot_head * K : nullptr;
  float o[Shape::kVec] = {};
  for (int row0 = thread_row; row0 - thread_row < K; row0 += kPrefetch * Shape::kRowsPerPass) {
    if (row0 != thread_row) load(row0);
#pragma unroll
    for (int r = 0; r < kPrefetch; ++r) {
      const int k = row0 + r * Shape::kRowsPerPass;
      const float weight = k < K ? shared.weight[k] : 0.0f;
      float x[Shape::kVec];
      StateVec<S>::Unpack(raw[r], x);
#pragma unroll
      for (int c = 0; c < Shape::kVec; ++c) o[c] = fmaf(weight, x[c], o[c]);
    }
    if (cursor.fold) {
#pragma unroll
      for (int r = 0; r < kPrefetch; r += Shape::kFoldPasses)
        FoldRows<S, A, kLanes>(raw + r, row0 + r * Shape::kRowsPerPass, column, active, n, K, state,
                               scales, shared);
    }
  }

#pragma unroll
  for (int c = 0; c < Shape::kVec; ++c) {
#pragma unroll
    for (int offset = 16; offset >= kLanes; offset /= 2)
      o[c] += __shfl_xor_sync(0xffffffffu, o[c], offset);
  }
  if (threadIdx.x % 32 < kLanes) {
    float* out = shared.o + (threadIdx.x / 32) * Shape::kColumns + (threadIdx.x % kLanes) * Shape::kVec;
#pragma unroll
    for (int c = 0; c < Shape::kVec; ++c) out[c] = o[c];
  }
  __syncthreads();
  WriteOutput<S, A, kLanes>(p, row, head, column0, n, shared);
}

template <typename S, typename A, int kLanes>
cudaError_t LaunchShape(const DecodeStepParams& p, cudaStream_t stream) {
  using Shape = StepShape<S, kLanes>;
  const KernelParams params = {p, static_cast<int32_t>(CeilDiv(p.head_dim, Shape::kColumns))};
  const auto kernel = DecodeStepKernel<S, A, kLanes>;
  const int length = p.ring.length <= 1 ? 1 : p.ring.length;
  const size_t bytes = StepShared<S, A, kLanes>::Bytes(length, p.head_dim);
  if (bytes > 48 * 1024) {
    HGRN2_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  }
  return Launch(kernel, dim3(p.num_heads * params.tiles, p.batch), dim3(Shape::kThreads), bytes,
                stream, p.programmatic, params);
}

// The tile is a function of head dim and dtype alone: results do not depend on the batch.
template <typename A>
cudaError_t LaunchActivation(const DecodeStepParams& p, cudaStream_t stream) {
  const int K = p.head_dim;
  switch (p.state.dtype) {
    case DType::kF32:
      return K <= 32 ? LaunchShape<float, A, 8>(p, stream) : LaunchShape<float, A, 16>(p, stream);
    case DType::kF16:
      return K <= 64 ? LaunchShape<__half, A, 8>(p, stream) : LaunchShape<__half, A, 16>(p, stream);
    case DType::kBF16:
      return K <= 64 ? LaunchShape<__nv_bfloat16, A, 8>(p, stream)
                     : LaunchShape<__nv_bfloat16, A, 16>(p, stream);
    case DType::kF8E4M3:  // the tile must span the row
      return K <= 64    ? LaunchShape<__nv_fp8_e4m3, A, 4>(p, stream)
             : K <= 128 ? LaunchShape<__nv_fp8_e4m3, A, 8>(p, stream)
                        : LaunchShape<__nv_fp8_e4m3, A, 16>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t LaunchDecodeStep(const DecodeStepParams& p, cudaStream_t stream) {
  const bool replay = p.ring.length > 1;
  if (p.batch == 0) return cudaSuccess;
  if (p.batch < 0 || p.batch > 65535 || p.num_heads <= 0 || p.head_dim < 16 || p.head_dim > 256 ||
      p.head_dim % 16 != 0 || p.ring.length > kMaxReplay || p.ring.phase < 0 ||
      (replay && (p.ring.entries == nullptr || p.ring.age == nullptr)) ||
      (p.state.dtype == DType::kF8E4M3 && p.state.scales == nullptr))
    return cudaErrorInvalidValue;
  if (p.activation == DType::kBF16) return LaunchActivation<__nv_bfloat16>(p, stream);
  if (p.activation == DType::kF32) return LaunchActivation<float>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace hgrn2::cuda
