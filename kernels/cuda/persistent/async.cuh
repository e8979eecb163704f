// Hopper's asynchronous copies and the grid barrier, as the persistent decode kernel uses them.
#pragma once

#include <cstdint>

namespace hgrn2::cuda::persistent {

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void MbarrierInit(uint32_t bar, uint32_t count) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
#endif
}
__device__ __forceinline__ void MbarrierArrive(uint32_t bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
#endif
}
__device__ __forceinline__ void MbarrierExpect(uint32_t bar, uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
               : "memory");
#endif
}
// Returns once the phase of the given parity has completed.
__device__ __forceinline__ void MbarrierWait(uint32_t bar, uint32_t parity) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra ready;\n"
      "bra again;\n"
      "ready:\n"
      "}\n" ::"r"(bar),
      "r"(parity)
      : "memory");
#endif
}

// L2 policy for bytes that are read once a step: leave the cache to activations and states.
__device__ __forceinline__ uint64_t EvictFirstPolicy() {
  uint64_t policy = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  return policy;
}
// REQUIRES: addresses and bytes are multiples of 16.
__device__ __forceinline__ void BulkLoad(uint32_t shared, const void* global, uint32_t bytes,
                                         uint32_t bar, uint64_t policy) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(bar), "l"(policy)
      : "memory");
#endif
}

// Makes initialised mbarriers visible to the copy engine.
__device__ __forceinline__ void MbarrierInitFence() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// Asks for the 32 bytes at `global` to be in L2 soon.
__device__ __forceinline__ void PrefetchL2(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global) : "memory");
}

// Barrier over the consumer threads of one block. The producer warp never takes part.
template <int kCount>
__device__ __forceinline__ void NamedSync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kCount) : "memory");
}

// Grid barrier in two halves, so that a block can fetch what does not depend on others in between.
// `counter` counts arrivals since the start of the launch; `target` is blocks x barriers so far.
// Arrive: every consumer thread's earlier writes become visible to whoever passes Wait.
template <int kCount>
__device__ __forceinline__ void GridArrive(uint32_t* counter) {
  NamedSync<kCount>();
  if (threadIdx.x == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
  }
}
template <int kCount>
__device__ __forceinline__ void GridWait(const uint32_t* counter, uint32_t target) {
  if (threadIdx.x == 0) {
    uint32_t seen;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    } while (seen < target);
  }
  NamedSync<kCount>();
}

}  // namespace hgrn2::cuda::persistent
