// What a block of the decode step brings on chip: state tile, ring, token; and where it puts them.
#pragma once

#include "kernels/cuda/recurrence/device_math.cuh"
#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda::decode {

// kLanes threads span one row of the tile, 16 bytes each.
template <typename S, int kLanes>
struct StepShape {
  static constexpr int kVec = StateVec<S>::kSize;
  static constexpr int kColumns = kLanes * kVec;
  static constexpr int kThreads = kLanes == 16 ? 256 : 128;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRowsPerPass = kThreads / kLanes;
  static constexpr int kFoldPasses = kVec == 4 ? 4 : 32 / kVec;  // rows folded together
  static_assert(kLanes <= 32 && 32 % kLanes == 0);
};

// Bounds the registers. With a ring of 16 and K = 128 shared memory admits 4 blocks of 256 threads
// (float16) or 6 of 128 (FP8).
template <int kThreads, bool kReplay, int kHeadDim>
inline constexpr int kBlocksPerSm = kThreads == 256             ? 4
                                    : kReplay&& kHeadDim == 128 ? 6
                                                                : 8;

// Views into dynamic shared memory. `length` is N, the ring's.
template <typename S, typename A, int kLanes>
struct StepShared {
  using Shape = StepShape<S, kLanes>;
  S* state;       // [K][columns], as it came
  A* ring;        // [N][2 (f, i)][K], oldest first; the last entry in use is the current token's i
  float* keys;    // [N][K] decayed to now
  float* q;       // [K]
  float* weight;  // [K] q * decay since S_0 (* FP8 scale)
  float* decay;   // [K] decay since S_0 (* FP8 scale)
  float* score;   // [N]
  float* o;       // [warps][columns]
  uint64_t* state_arrived;  // mbarriers
  uint64_t* ring_arrived;

  static __host__ __device__ size_t Bytes(int length, int K) {
    return sizeof(S) * K * Shape::kColumns +
           static_cast<size_t>(length) * K * (2 * sizeof(A) + sizeof(float)) +
           sizeof(float) * (3 * K + kMaxReplay + Shape::kWarps * Shape::kColumns) +
           2 * sizeof(uint64_t);
  }
  __device__ StepShared(char* base, int length, int K) {
    state = reinterpret_cast<S*>(base);
    ring = reinterpret_cast<A*>(state + K * Shape::kColumns);
    keys = reinterpret_cast<float*>(ring + static_cast<size_t>(length) * 2 * K);
    q = keys + length * K;
    weight = q + K;
    decay = weight + K;
    score = decay + K;
    o = score + kMaxReplay;
    state_arrived = reinterpret_cast<uint64_t*>(o + Shape::kWarps * Shape::kColumns);
    ring_arrived = state_arrived + 1;
  }
  // This thread's 16 bytes of row k. Zeros past K.
  __device__ __forceinline__ uint4* OwnAt(int k) const {
    return reinterpret_cast<uint4*>(state + k * Shape::kColumns +
                                    threadIdx.x % kLanes * Shape::kVec);
  }
  __device__ __forceinline__ uint4 Own(int k, int K) const { return k < K ? *OwnAt(k) : uint4{}; }
};

__device__ __forceinline__ uint32_t SharedAddress(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// Copies into shared memory that arrive in two batches: the ring, then the state. On sm_90
// the bulk copy engine does them, at one instruction per contiguous piece; before, every thread
// copies 16 bytes at a time.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ __forceinline__ void CopyInit(uint64_t* arrived) {
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(SharedAddress(arrived)) : "memory");
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(SharedAddress(arrived + 1)) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
}
__device__ __forceinline__ void CopyExpect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CopyBulk(void* shared, const void* global, uint32_t bytes,
                                         uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}
__device__ __forceinline__ void CopyWait(uint64_t* barrier) {
  const uint32_t address = SharedAddress(barrier);
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared.b64 p, [%1], 0;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(address)
        : "memory");
  }
}
#else
__device__ __forceinline__ void CopyInit(uint64_t*) {}
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)), "l"(global)
               : "memory");
}
__device__ __forceinline__ void CopyWait(uint64_t*) {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();  // every thread reads the ring
}
#endif

// Starts the copy of the state tile. A reset slot's state is not read.
template <typename S, typename A, int kLanes>
__device__ __forceinline__ void FetchState(const S* state, int column0, bool reset, int K,
                                           const StepShared<S, A, kLanes>& shared) {
  using Shape = StepShape<S, kLanes>;
  const int columns = min(Shape::kColumns, K - column0);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (threadIdx.x < 32 && !reset) {
    const uint32_t row_bytes = columns * static_cast<uint32_t>(sizeof(S));
    if (threadIdx.x == 0) CopyExpect(shared.state_arrived, row_bytes * K);
    __syncwarp();
    if (columns == Shape::kColumns && columns == K) {
      if (threadIdx.x == 0) CopyBulk(shared.state, state, row_bytes * K, shared.state_arrived);
    } else {
      for (int k = threadIdx.x; k < K; k += 32)
        CopyBulk(shared.state + k * Shape::kColumns, state + static_cast<int64_t>(k) * K + column0,
                 row_bytes, shared.state_arrived);
    }
  }
#else
  const int column = (threadIdx.x % kLanes) * Shape::kVec;
#pragma unroll 8
  for (int k = threadIdx.x / kLanes; k < K; k += Shape::kRowsPerPass)
    if (column < columns && !reset)
      CopyAsync16(shared.OwnAt(k), state + static_cast<int64_t>(k) * K + column0 + column);
#endif
  if (reset || (threadIdx.x % kLanes) * Shape::kVec >= columns)  // no copy writes there
    for (int k = threadIdx.x / kLanes; k < K; k += Shape::kRowsPerPass)
      *shared.OwnAt(k) = uint4{0, 0, 0, 0};
}

// Starts the copy of the ring's n tokens.
template <typename S, typename A, int kLanes>
__device__ __forceinline__ void FetchRing(const A* ring, int n, int K,
                                          const StepShared<S, A, kLanes>& shared) {
  const uint32_t bytes = n * 2 * K * static_cast<uint32_t>(sizeof(A));
  if (n == 0) return;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (threadIdx.x == 0) {
    CopyExpect(shared.ring_arrived, bytes);
    CopyBulk(shared.ring, ring, bytes, shared.ring_arrived);
  }
#else
  for (uint32_t at = threadIdx.x * 16; at < bytes; at += StepShape<S, kLanes>::kThreads * 16)
    CopyAsync16(reinterpret_cast<char*>(shared.ring) + at,
                reinterpret_cast<const char*>(ring) + at);
#endif
}

// This sequence's token, fetched ahead of its use. Thread k owns channel k (and k + kThreads).
template <typename S, typename A, int kLanes>
struct Token {
  static constexpr int kChannels = 256 / StepShape<S, kLanes>::kThreads;
  A q[kChannels], f[kChannels], i[kChannels];
  float bound[kChannels], scale[kChannels];

  // What does not depend on the kernel in front.
  __device__ __forceinline__ void FetchEarly(const DecodeStepParams& p, int K, int slot, int head,
                                             bool reset) {
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      const int k = threadIdx.x + j * StepShape<S, kLanes>::kThreads;
      if (k >= K) break;
      bound[j] = p.lower_bound[head * K + k];
      scale[j] = 1.0f;
      if (kIsFp8<S>)  // a reset slot's scales may be anything
        scale[j] = reset
                       ? 0.0f
                       : p.state.scales[(static_cast<int64_t>(slot) * p.num_heads + head) * K + k];
    }
  }
  __device__ __forceinline__ void Fetch(const DecodeStepParams& p, int K, int row, int head) {
    const int d = p.num_heads * K;
    const A* qfi = static_cast<const A*>(p.qfi) + static_cast<int64_t>(row) * 3 * d + head * K;
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      const int k = threadIdx.x + j * StepShape<S, kLanes>::kThreads;
      if (k >= K) break;
      q[j] = qfi[k], f[j] = qfi[d + k], i[j] = qfi[2 * d + k];
    }
  }
};

}  // namespace hgrn2::cuda::decode
