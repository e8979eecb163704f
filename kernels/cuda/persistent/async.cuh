// The persistent decode kernel's barriers, and prefetching into L2.
#pragma once

#include <cstdint>

#include "kernels/cuda/async.cuh"

namespace hgrn2::cuda::persistent {

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
