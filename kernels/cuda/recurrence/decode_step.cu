// One token per sequence: the state step (ring length 1) and replay decode.
// docs/kernels/state-step.md and docs/kernels/replay.md have the maths.
//
// A block owns one (sequence, head, tile of V columns): all K rows of the tile, so the output needs
// no reduction between blocks. Everything that does not depend on the projections in front of this
// kernel (state, ring) is on its way before GridDependencyWait.
#include "kernels/cuda/recurrence/decode_stage.cuh"
#include "kernels/cuda/recurrence/replay_step.h"
#include "kernels/cuda/recurrence/ring_cursor.cuh"

namespace hgrn2::cuda {
namespace decode {
namespace {

struct KernelParams {
  DecodeStepParams p;
  int32_t tiles;  // V tiles per head
};

// Decays the ring's keys to now, newest to oldest, by running products of gates: no division, so a
// gate of zero is no special case. Appends the token to the ring (`append`: its place, or null).
template <typename S, typename A, int kLanes>
__device__ __forceinline__ void DecayKeys(const Token<S, A, kLanes>& token, int K, int n, A* append,
                                          const StepShared<S, A, kLanes>& shared) {
  constexpr bool kExact = kIsFloat<A>;
#pragma unroll
  for (int j = 0; j < Token<S, A, kLanes>::kChannels; ++j) {
    const int k = threadIdx.x + j * StepShape<S, kLanes>::kThreads;
    if (k >= K) break;
    const float q = SwishGate<kExact>(ToFloat(token.q[j]));
    const Gate now = ForgetGate<kExact>(ToFloat(token.f[j]), token.bound[j]);
    shared.ring[(2 * n + 1) * K + k] = token.i[j];
    shared.keys[n * K + k] = now.k;
    if (append != nullptr) append[k] = token.f[j], append[K + k] = token.i[j];
    float decay = now.g;
#pragma unroll 4
    for (int s = n - 1; s >= 0; --s) {
      const Gate past = ForgetGate<kExact>(ToFloat(shared.ring[2 * s * K + k]), token.bound[j]);
      shared.keys[s * K + k] = past.k * decay;
      decay *= past.g;
    }
    shared.q[k] = q;
    shared.weight[k] = q * decay * token.scale[j];
    shared.decay[k] = decay * token.scale[j];
  }
}

// score[s] = q . keys[s], a warp per token.
template <typename S, typename A, int kLanes>
__device__ __forceinline__ void ScoreKeys(int n, int K, const StepShared<S, A, kLanes>& shared) {
  constexpr int kPerLane = 256 / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (warp > n) return;
  float q[kPerLane];
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) q[j] = lane + 32 * j < K ? shared.q[lane + 32 * j] : 0.0f;
#pragma unroll 1
  for (int s = warp; s <= n; s += StepShape<S, kLanes>::kWarps) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j)
      if (lane + 32 * j < K) sum = fmaf(q[j], shared.keys[s * K + lane + 32 * j], sum);
    sum = WarpSum(sum);
    if (lane == 0) shared.score[s] = sum;
  }
}

template <typename A, int kVec>
__device__ __forceinline__ void LoadInputs(const A* from, float (&x)[kVec]) {
  constexpr int kPerLoad = 16 / sizeof(A);
  static_assert(kVec * sizeof(A) >= 8);
  if constexpr (kVec * sizeof(A) == 8) {  // float32 state, bfloat16 inputs
    const uint2 raw = *reinterpret_cast<const uint2*>(from);
    x[0] = __uint_as_float(raw.x << 16), x[1] = __uint_as_float(raw.x & 0xffff0000u);
    x[2] = __uint_as_float(raw.y << 16), x[3] = __uint_as_float(raw.y & 0xffff0000u);
  } else {
#pragma unroll
    for (int c = 0; c < kVec; c += kPerLoad) {
      float part[kPerLoad];
      StateVec<A>::Unpack(*reinterpret_cast<const uint4*>(from + c), part);
#pragma unroll
      for (int i = 0; i < kPerLoad; ++i) x[c + i] = part[i];
    }
  }
}

// S = diag(decay) S_0 + sum_s keys[s] (x) i[s] for kPasses of this thread's rows, written back.
template <typename S, typename A, int kLanes, int kPasses>
__device__ __forceinline__ void FoldRows(int first_row, int column, bool active, int n, int K,
                                         S* state, float* scales,
                                         const StepShared<S, A, kLanes>& shared) {
  using Shape = StepShape<S, kLanes>;
  constexpr int kVec = Shape::kVec;
  float sum[kPasses][kVec];
#pragma unroll
  for (int r = 0; r < kPasses; ++r) {
    const int k = first_row + r * Shape::kRowsPerPass;
    const float decay = k < K ? shared.decay[k] : 0.0f;
    StateVec<S>::Unpack(shared.Own(k, K), sum[r]);
#pragma unroll
    for (int c = 0; c < kVec; ++c) sum[r][c] *= decay;
  }
  const int safe_column = active ? column : 0;
#pragma unroll 1
  for (int s = 0; s <= n; ++s) {
    float input[kVec];
    LoadInputs<A, kVec>(&shared.ring[(2 * s + 1) * K + safe_column], input);
#pragma unroll
    for (int r = 0; r < kPasses; ++r) {
      const int k = first_row + r * Shape::kRowsPerPass;
      const float key = shared.keys[s * K + (k < K ? k : 0)];
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
      for (int c = 0; c < kVec; ++c) largest = fmaxf(largest, active ? fabsf(sum[r][c]) : 0.0f);
#pragma unroll
      for (int offset = kLanes / 2; offset > 0; offset /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
      const float inverse = largest > kLeastE4M3Row ? kMaxE4M3 / largest : 0.0f;
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
__device__ __forceinline__ void WriteOutput(const DecodeStepParams& p, int K, int row, int head,
                                            int column0, int n,
                                            const StepShared<S, A, kLanes>& shared) {
  using Shape = StepShape<S, kLanes>;
  const int d = p.num_heads * K;
  const float scale = rsqrtf(static_cast<float>(K));
  for (int c = threadIdx.x; c < Shape::kColumns; c += Shape::kThreads) {
    const int v = column0 + c;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) sum += shared.o[w * Shape::kColumns + c];
    if (v < K)
#pragma unroll 4
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
__device__ __forceinline__ void ZeroOutput(const DecodeStepParams& p, int row, int head,
                                           int column0) {
  using Shape = StepShape<S, kLanes>;
  const int K = p.head_dim, d = p.num_heads * K;
  for (int c = threadIdx.x; c < Shape::kColumns; c += Shape::kThreads) {
    const int v = column0 + c;
    if (v >= K) return;
    const int64_t at = static_cast<int64_t>(row) * d + head * K + v;
    static_cast<A*>(p.o)[at] = FromFloat<A>(0.0f);
    if (p.sum_squares != nullptr && v % kSumSquareGroup == 0)
      p.sum_squares[at / kSumSquareGroup] = 0;
  }
}

// kReplay: false means that every step writes the state and there is no ring. kHeadDim: 0, or the
// head dim, where knowing it saves instructions.
template <typename S, typename A, int kLanes, bool kReplay, int kHeadDim>
__global__ void __launch_bounds__(StepShape<S, kLanes>::kThreads,
                                  kBlocksPerSm<StepShape<S, kLanes>::kThreads, kReplay, kHeadDim>)
    DecodeStepKernel(const __grid_constant__ KernelParams params) {
  using Shape = StepShape<S, kLanes>;
  extern __shared__ __align__(16) char shared_bytes[];
  const DecodeStepParams& p = params.p;
  const int K = kHeadDim != 0 ? kHeadDim : p.head_dim, N = kReplay ? p.ring.length : 1;
  const int b = blockIdx.y, head = blockIdx.x / params.tiles;
  const int column0 = (blockIdx.x % params.tiles) * Shape::kColumns;
  const StepShared<S, A, kLanes> shared(shared_bytes, N, K);
  CopyInit(shared.state_arrived);

  const int slot = p.slots[b];
  const int row = p.token_rows != nullptr ? p.token_rows[b] : b;
  if (slot < 0) {
    GridDependencyWait();
    ZeroOutput<S, A, kLanes>(p, row, head, column0);
    return;
  }
  const bool reset = p.reset != nullptr && p.reset[b] != 0;
  const int64_t slot_head = static_cast<int64_t>(slot) * p.num_heads + head;
  S* state = static_cast<S*>(p.state.state) + slot_head * K * K;
  float* scales = kIsFp8<S> ? p.state.scales + slot_head * K : nullptr;
  const int column = column0 + (threadIdx.x % kLanes) * Shape::kVec;
  const bool active = column < K;
  const RingCursor cursor = kReplay ? CursorOf(p.ring, slot, reset) : RingCursor{0, 0, true};
  const int n = kReplay ? cursor.n : 0;
  A* ring = static_cast<A*>(p.ring.entries) + slot_head * N * 2 * K;
  FetchRing<S, A, kLanes>(ring + (cursor.x - n) * 2 * K, n, K, shared);  // first: the gates need it
  FetchState<S, A, kLanes>(state, column0, reset, K, shared);
  Token<S, A, kLanes> token;
  token.FetchEarly(p, K, slot, head, reset);

  if (!p.after_prefill) GridDependencyWait();
  GridDependencyLaunch();
  token.Fetch(p, K, row, head);
  if (kReplay && n > 0) CopyWait(shared.ring_arrived);
  DecayKeys<S, A, kLanes>(token, K, n,
                          cursor.fold || column0 > 0 ? nullptr : ring + cursor.x * 2 * K, shared);
  __syncthreads();
  ScoreKeys<S, A, kLanes>(n, K, shared);
  if (!reset) CopyWait(shared.state_arrived);

  const int thread_row = threadIdx.x / kLanes;
  float o[Shape::kVec] = {};
#pragma unroll 4
  for (int k = thread_row; k < K; k += Shape::kRowsPerPass) {
    const float weight = shared.weight[k];
    float x[Shape::kVec];
    StateVec<S>::Unpack(*shared.OwnAt(k), x);
#pragma unroll
    for (int c = 0; c < Shape::kVec; ++c) o[c] = fmaf(weight, x[c], o[c]);
  }
  if (!kReplay || cursor.fold) {
    constexpr int kPasses = kReplay ? Shape::kFoldPasses : Shape::kFoldPasses / 2;
    for (int row0 = thread_row; row0 - thread_row < K; row0 += kPasses * Shape::kRowsPerPass)
      FoldRows<S, A, kLanes, kPasses>(row0, column, active, n, K, state, scales, shared);
  }

#pragma unroll
  for (int c = 0; c < Shape::kVec; ++c) {
#pragma unroll
    for (int offset = 16; offset >= kLanes; offset /= 2)
      o[c] += __shfl_xor_sync(0xffffffffu, o[c], offset);
  }
  if (threadIdx.x % 32 < kLanes) {
    float* out =
        shared.o + (threadIdx.x / 32) * Shape::kColumns + (threadIdx.x % kLanes) * Shape::kVec;
#pragma unroll
    for (int c = 0; c < Shape::kVec; ++c) out[c] = o[c];
  }
  __syncthreads();
  WriteOutput<S, A, kLanes>(p, K, row, head, column0, n, shared);
  if (p.after_prefill) GridDependencyWait();
}

template <typename S, typename A, int kLanes, bool kReplay, int kHeadDim>
cudaError_t LaunchKernel(const DecodeStepParams& p, cudaStream_t stream) {
  using Shape = StepShape<S, kLanes>;
  const KernelParams params = {p, static_cast<int32_t>(CeilDiv(p.head_dim, Shape::kColumns))};
  const auto kernel = DecodeStepKernel<S, A, kLanes, kReplay, kHeadDim>;
  const size_t bytes = StepShared<S, A, kLanes>::Bytes(kReplay ? p.ring.length : 1, p.head_dim);
  if (bytes > 48 * 1024) HGRN2_CUDA_RETURN_IF_ERROR(AllowMostSharedMemory(kernel));
  return Launch(kernel, dim3(p.num_heads * params.tiles, p.batch), dim3(Shape::kThreads), bytes,
                stream, p.programmatic, params);
}

template <typename S, typename A, int kLanes>
cudaError_t LaunchShape(const DecodeStepParams& p, cudaStream_t stream) {
  constexpr bool kServes128 = StepShape<S, kLanes>::kColumns == (sizeof(S) == 4 ? 64 : 128);
  const bool replay = p.ring.length > 1;
  if constexpr (kServes128) {
    if (p.head_dim == 128)
      return replay ? LaunchKernel<S, A, kLanes, true, 128>(p, stream)
                    : LaunchKernel<S, A, kLanes, false, 128>(p, stream);
  }
  return replay ? LaunchKernel<S, A, kLanes, true, 0>(p, stream)
                : LaunchKernel<S, A, kLanes, false, 0>(p, stream);
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
}  // namespace decode

cudaError_t LaunchDecodeStep(const DecodeStepParams& p, cudaStream_t stream) {
  const bool replay = p.ring.length > 1;
  if (p.batch == 0) return cudaSuccess;
  if (p.batch < 0 || p.batch > 65535 || p.num_heads <= 0 || p.head_dim < 16 || p.head_dim > 256 ||
      p.head_dim % 16 != 0 || p.ring.length > kMaxReplay || p.ring.phase < 0 ||
      (p.sum_squares != nullptr && p.head_dim % kSumSquareGroup != 0) ||
      (replay && (p.ring.entries == nullptr || p.ring.age == nullptr)) ||
      (p.state.dtype == DType::kF8E4M3 && p.state.scales == nullptr))
    return cudaErrorInvalidValue;
  if (replay::Serves(p)) return replay::Launch(p, stream);
  if (p.activation == DType::kBF16) return decode::LaunchActivation<__nv_bfloat16>(p, stream);
  if (p.activation == DType::kF32) return decode::LaunchActivation<float>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace hgrn2::cuda
