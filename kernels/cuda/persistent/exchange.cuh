// How numbers pass from the block that computes them to the blocks that use them.
//
// A cell is 4 bytes of payload: two bfloat16 or a float. Without flags it is just that, and a grid
// barrier lies between its writer and its readers. With flags a second word says which phase of
// which step wrote it. Both words travel in one 8-byte access, which is atomic, so a reader needs
// neither fence nor counter: it loads until the flag is the one it waits for.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace hgrn2::cuda::persistent {

template <bool kFlags>
struct Cell;
template <>
struct Cell<false> {
  uint32_t bits;
  __device__ __forceinline__ bool Ready(uint32_t) const { return true; }
};
template <>
struct alignas(8) Cell<true> {
  uint32_t bits, flag;
  __device__ __forceinline__ bool Ready(uint32_t expected) const { return flag == expected; }
};

__device__ __forceinline__ Cell<true> Unpack(uint64_t v) {
  return {static_cast<uint32_t>(v), static_cast<uint32_t>(v >> 32)};
}

__device__ __forceinline__ Cell<false> LoadCell(const Cell<false>* at) {
  return {__ldcg(&at->bits)};
}
__device__ __forceinline__ Cell<true> LoadCell(const Cell<true>* at) {
  uint64_t v;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(v) : "l"(at));
  return Unpack(v);
}
// Two neighbours in one access of 16 bytes; each is atomic for itself.
__device__ __forceinline__ void LoadCells(const Cell<true>* at, Cell<true> (&v)[2]) {
  uint64_t a, b;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];" : "=l"(a), "=l"(b) : "l"(at));
  v[0] = Unpack(a), v[1] = Unpack(b);
}
__device__ __forceinline__ void LoadCells(const Cell<false>* at, Cell<false> (&v)[4]) {
  const uint4 u = __ldcg(reinterpret_cast<const uint4*>(at));
  v[0] = {u.x}, v[1] = {u.y}, v[2] = {u.z}, v[3] = {u.w};
}
__device__ __forceinline__ void LoadCells(const Cell<true>* at, Cell<true> (&v)[4]) {
  Cell<true> pair[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    LoadCells(at + i * 2, pair);
    v[i * 2] = pair[0], v[i * 2 + 1] = pair[1];
  }
}

__device__ __forceinline__ void StoreCell(Cell<false>* at, uint32_t bits, uint32_t) {
  at->bits = bits;
}
__device__ __forceinline__ void StoreCell(Cell<true>* at, uint32_t bits, uint32_t flag) {
  const uint64_t v = uint64_t{flag} << 32 | bits;
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(at), "l"(v) : "memory");
}

// Loads again until `v` is there.
template <bool kFlags, typename Loaded>
__device__ __forceinline__ void Await(const Cell<kFlags>* at, uint32_t flag, Loaded& v) {
  if constexpr (kFlags) {
    auto ready = [&] {
      if constexpr (sizeof(Loaded) == sizeof(Cell<true>)) {
        return v.Ready(flag);
      } else {
        bool all = true;
#pragma unroll
        for (const Cell<true>& cell : v) all = all && cell.Ready(flag);
        return all;
      }
    };
    while (!ready()) {
      if constexpr (sizeof(Loaded) == sizeof(Cell<true>)) {
        v = LoadCell(at);
      } else {
        LoadCells(at, v);
      }
    }
  }
}

// Half `index % 2` of a pair.
__device__ __forceinline__ uint16_t Bf16Half(uint32_t pair, int index) {
  return static_cast<uint16_t>(index % 2 == 0 ? pair : pair >> 16);
}

}  // namespace hgrn2::cuda::persistent
