// Hopper's asynchronous copies into shared memory and the barriers they complete on. Shared memory
// is named by its 32-bit address; before sm_90 every function is empty.
#pragma once

#include <cstdint>

namespace hgrn2::cuda {

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void MbarrierInit(uint32_t bar, uint32_t count) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
#endif
}
// Makes initialised mbarriers visible to the copy engine.
__device__ __forceinline__ void MbarrierInitFence() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ __forceinline__ void MbarrierArrive(uint32_t bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
#endif
}
// Arrives, and makes the phase wait for `bytes` more.
__device__ __forceinline__ void MbarrierExpect(uint32_t bar, uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
               : "memory");
#endif
}
// The same without arriving.
__device__ __forceinline__ void MbarrierExpectMore(uint32_t bar, uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(bytes)
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

// A position in a ring of stages: the stage, and the parity of the phase that its barriers are in.
struct StageCursor {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Advance(int stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
  // REQUIRES: n >= 0.
  __device__ __forceinline__ void Skip(int n, int stages) {
    const int at = stage + n;
    parity ^= at / stages & 1;
    stage = at % stages;
  }
};

// L2 policy for bytes that are read once a step: leave the cache to what is read again.
__device__ __forceinline__ uint64_t EvictFirstPolicy() {
  uint64_t policy = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  return policy;
}
__device__ __forceinline__ uint64_t EvictNormalPolicy() {
  uint64_t policy = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
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
// The same without a policy.
__device__ __forceinline__ void BulkLoad(uint32_t shared, const void* global, uint32_t bytes,
                                         uint32_t bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared),
      "l"(global), "r"(bytes), "r"(bar)
      : "memory");
#endif
}
// The box of a two-dimensional tensor map (a __grid_constant__ parameter) at (column, row).
__device__ __forceinline__ void TensorLoad(uint32_t shared, const void* map, int column, int row,
                                           uint32_t bar, uint64_t policy) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(bar), "l"(policy)
      : "memory");
#endif
}
// The same without a policy.
__device__ __forceinline__ void TensorLoad(uint32_t shared, const void* map, int column, int row,
                                           uint32_t bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(bar)
      : "memory");
#endif
}
// The box of a five-dimensional tensor map at (column, 0, 0, 0, sixteen).
__device__ __forceinline__ void TensorLoadRows(uint32_t shared, const void* map, int column,
                                               int sixteen, uint32_t bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %5, %5, %5, %3}], [%4];" ::"r"(shared),
      "l"(map), "r"(column), "r"(sixteen), "r"(bar), "r"(0)
      : "memory");
#endif
}
// The same for both blocks of a cluster of two: to the same place in either, completing on either's
// barrier.
__device__ __forceinline__ void TensorLoadRowsToPair(uint32_t shared, const void* map, int column,
                                                     int sixteen, uint32_t bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %5, %5, %5, %3}], [%4], %6;" ::"r"(shared),
      "l"(map), "r"(column), "r"(sixteen), "r"(bar), "r"(0), "h"(static_cast<uint16_t>(3))
      : "memory");
#endif
}
// Arrives at the barrier at the same place in block `rank` of the cluster. Orders nothing but what
// the copy engine does next: scopes of a cluster cost twice the time (docs/kernels/decode-gemm.md).
__device__ __forceinline__ void MbarrierArriveAtPeer(uint32_t bar, uint32_t rank) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(bar),
      "r"(rank)
      : "memory");
#endif
}
// Copies shared memory to the same place as `to` in block `rank` of the cluster; completes on that
// block's barrier at the same place as `bar`.
__device__ __forceinline__ void SendToPeer(const void* to, const void* from, uint32_t bytes,
                                           uint32_t bar, uint32_t rank) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there, done;\n"
      "mapa.shared::cluster.u32 there, %0, %4;\n"
      "mapa.shared::cluster.u32 done, %3, %4;\n"
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
      "[there], [%1], %2, [done];\n"
      "}\n" ::"r"(SharedAddress(to)),
      "r"(SharedAddress(from)), "r"(bytes), "r"(bar), "r"(rank)
      : "memory");
#endif
}
// Until what this thread has sent has been read from this block's memory.
__device__ __forceinline__ void SentRead() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
#endif
}
// Every thread of a cluster arrives once, then waits once, aligned by warps; orders no memory but
// initialised mbarriers behind MbarrierInitFence.
__device__ __forceinline__ void ClusterArrive() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void ClusterWait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// Orders this thread's ordinary accesses to shared memory before later ones of the copy engine.
__device__ __forceinline__ void AsyncProxyFence() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace hgrn2::cuda
