// Shapes, shared memory and instructions of the chunked prefill kernel.
#pragma once

#include "kernels/cuda/recurrence/device_math.cuh"
#include "kernels/cuda/recurrence/prefill_internal.h"

namespace hgrn2::cuda::chunked {

using bf16 = __nv_bfloat16;

constexpr int kChunk = 16;
constexpr int kHalf = kChunk / 2;
// Score operands are scaled by the decay to the middle of the chunk, at most 1 / kSmallestDecay.
// Channels that decay more than this within half a chunk are scored one by one instead.
constexpr float kSmallestDecay = 7.7e-34f;  // 2^-110

template <int kPaddedK>
struct ChunkShape {
  static constexpr int kValues = PrefillValueTile(kPaddedK);
  static constexpr int kWarps = kValues / 16;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kBlocks = kPaddedK == 256 ? 2 : 4;  // chunks staged at a time
  static constexpr int kTokens = kBlocks * kChunk;
  static constexpr int kTiles = kPaddedK / 8;   // accumulator tiles of a warp
  static constexpr int kStride = kPaddedK + 8;  // + 16 bytes: rows of an ldmatrix in all banks
  static constexpr int kInputStride = kValues + 8;
  static constexpr int kFinalStride = kValues + 4;
  static constexpr int kMaskWords = (kPaddedK + 31) / 32;
};

template <int kPaddedK>
struct ChunkShared {
  using Shape = ChunkShape<kPaddedK>;
  // Raw q and f as they arrive; then, in place, the operands of the scores.
  bf16 q_score[Shape::kTokens][Shape::kStride];
  bf16 k_score[Shape::kTokens][Shape::kStride];
  bf16 q_state[Shape::kTokens][Shape::kStride];  // q decayed from the chunk's start
  bf16 k_state[Shape::kTokens][Shape::kStride];  // k decayed to the chunk's end
  bf16 input[2][Shape::kTokens][Shape::kInputStride];
  bf16 score[Shape::kBlocks][kChunk][kChunk + 8];
  float decay[Shape::kBlocks][kPaddedK];  // over a chunk
  float total[kPaddedK];                  // over the item so far
  float bound[kPaddedK];
  union {
    float slow_score[Shape::kWarps][kChunk][kHalf];
    float squares[Shape::kTokens][Shape::kWarps];  // of o, after Scores: over a warp's 16 channels
  };
  uint32_t slow[Shape::kBlocks][Shape::kMaskWords];  // channels to score one by one
};

__device__ __forceinline__ uint32_t SharedAddress(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}
// 16 bytes, zeros if !valid.
__device__ __forceinline__ void CopyAsync(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CopyAsyncWait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], const bf16* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(at))
               : "memory");
}
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4], const bf16* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(at))
               : "memory");
}
// c += a b, a [16 x 16] row-major fragments, b [16 x 8].
__device__ __forceinline__ void Mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ float2 UnpackPair(const bf16* at) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(at));
}
__device__ __forceinline__ void StorePair(bf16* at, float x, float y) {
  *reinterpret_cast<__nv_bfloat162*>(at) = __floats2bfloat162_rn(x, y);
}

}  // namespace hgrn2::cuda::chunked
