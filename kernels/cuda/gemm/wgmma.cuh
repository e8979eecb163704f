// wgmma: D[64, N] += A[64, k] B[N, k]^T, operands in shared memory (K-major, 128-byte swizzle), one
// instruction of 32 bytes of k. Registers of D have to be spelled out one by one, in strings and in
// operands: the macros count them in groups of 16.
#pragma once

#include <cstdint>

#define HGRN2_NAMES_0                \
  "%0, %1, %2, %3, %4, %5, %6, %7, " \
  "%8, %9, %10, %11, %12, %13, %14, %15"
#define HGRN2_NAMES_16                       \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define HGRN2_NAMES_32                       \
  "%32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47"
#define HGRN2_NAMES_48                       \
  "%48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63"
#define HGRN2_NAMES_64                       \
  "%64, %65, %66, %67, %68, %69, %70, %71, " \
  "%72, %73, %74, %75, %76, %77, %78, %79"
#define HGRN2_NAMES_80                       \
  "%80, %81, %82, %83, %84, %85, %86, %87, " \
  "%88, %89, %90, %91, %92, %93, %94, %95"
#define HGRN2_SUMS(b)                                                                           \
  "+f"(d[(b) + 0]), "+f"(d[(b) + 1]), "+f"(d[(b) + 2]), "+f"(d[(b) + 3]), "+f"(d[(b) + 4]),     \
      "+f"(d[(b) + 5]), "+f"(d[(b) + 6]), "+f"(d[(b) + 7]), "+f"(d[(b) + 8]), "+f"(d[(b) + 9]), \
      "+f"(d[(b) + 10]), "+f"(d[(b) + 11]), "+f"(d[(b) + 12]), "+f"(d[(b) + 13]),               \
      "+f"(d[(b) + 14]), "+f"(d[(b) + 15])
#define HGRN2_SUMS_64 HGRN2_SUMS(0), HGRN2_SUMS(16)
#define HGRN2_SUMS_96 HGRN2_SUMS_64, HGRN2_SUMS(32)
#define HGRN2_SUMS_128 HGRN2_SUMS_96, HGRN2_SUMS(48)
#define HGRN2_SUMS_160 HGRN2_SUMS_128, HGRN2_SUMS(64)
#define HGRN2_SUMS_192 HGRN2_SUMS_160, HGRN2_SUMS(80)
// n: columns; names, sums: of D; a, b, p: numbers of the operands behind D.
#define HGRN2_WGMMA(n, names, sums, a, b, p)                                                    \
  template <>                                                                                   \
  struct Wgmma<n, false> {                                                                      \
    static __device__ __forceinline__ void Run(float (&d)[n / 2], uint64_t x, uint64_t y,       \
                                               int accumulate) {                                \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p                                      \
                   ", 0;\n"                                                                     \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" names "}, %" #a \
                   ", %" #b ", p, 1, 1, 0, 0;\n}\n"                                             \
                   : sums                                                                       \
                   : "l"(x), "l"(y), "r"(accumulate));                                          \
    }                                                                                           \
  };                                                                                            \
  template <>                                                                                   \
  struct Wgmma<n, true> {                                                                       \
    static __device__ __forceinline__ void Run(float (&d)[n / 2], uint64_t x, uint64_t y,       \
                                               int accumulate) {                                \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p                                      \
                   ", 0;\n"                                                                     \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k32.f32.e4m3.e4m3 {" names "}, %" #a \
                   ", %" #b ", p, 1, 1;\n}\n"                                                   \
                   : sums                                                                       \
                   : "l"(x), "l"(y), "r"(accumulate));                                          \
    }                                                                                           \
  }

namespace hgrn2::cuda {

// Descriptor of rows of 128 bytes, 128-byte swizzle: groups of 8 rows are 1024 bytes apart.
__device__ __forceinline__ uint64_t WgmmaDescriptor(uint32_t shared) {
  return (shared & 0x3FFFF) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

template <int kN, bool kFp8>
struct Wgmma;

HGRN2_WGMMA(32, HGRN2_NAMES_0, HGRN2_SUMS(0), 16, 17, 18);
HGRN2_WGMMA(64, HGRN2_NAMES_0 ", " HGRN2_NAMES_16, HGRN2_SUMS_64, 32, 33, 34);
HGRN2_WGMMA(96, HGRN2_NAMES_0 ", " HGRN2_NAMES_16 ", " HGRN2_NAMES_32, HGRN2_SUMS_96, 48, 49, 50);
HGRN2_WGMMA(128, HGRN2_NAMES_0 ", " HGRN2_NAMES_16 ", " HGRN2_NAMES_32 ", " HGRN2_NAMES_48,
            HGRN2_SUMS_128, 64, 65, 66);
HGRN2_WGMMA(160,
            HGRN2_NAMES_0 ", " HGRN2_NAMES_16 ", " HGRN2_NAMES_32 ", " HGRN2_NAMES_48
                          ", " HGRN2_NAMES_64,
            HGRN2_SUMS_160, 80, 81, 82);
HGRN2_WGMMA(192,
            HGRN2_NAMES_0 ", " HGRN2_NAMES_16 ", " HGRN2_NAMES_32 ", " HGRN2_NAMES_48
                          ", " HGRN2_NAMES_64 ", " HGRN2_NAMES_80,
            HGRN2_SUMS_192, 96, 97, 98);

// sums[piece] (+)= 128 bytes of columns of 64 rows at `x`, the next piece's behind them, times
// kRows rows at `y`: shared addresses of rows of 128 bytes. Enqueues, as a group of its own.
template <int kRows, bool kFp8, int kPieces>
__device__ __forceinline__ void WgmmaBlock(float (&sums)[kPieces][kRows / 2], uint32_t x,
                                           uint32_t y, bool first) {
  constexpr int kRowBytes = 128, kStepBytes = 32, kUnit = 16;  // of descriptors' addresses
  const uint64_t from_x = WgmmaDescriptor(x), from_y = WgmmaDescriptor(y);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int k = 0; k < kRowBytes / kStepBytes; ++k) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      Wgmma<kRows, kFp8>::Run(sums[piece],
                              from_x + piece * (64 * kRowBytes / kUnit) + k * (kStepBytes / kUnit),
                              from_y + k * (kStepBytes / kUnit), !first || k > 0);
    }
  }
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until no more than so many groups are under way.
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Until there are none; the sums may be read then, and the compiler does not read them earlier.
template <int kPieces, int kSums>
__device__ __forceinline__ void WgmmaFinish(float (&sums)[kPieces][kSums]) {
  WgmmaWait<0>();
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
    for (int j = 0; j < kSums; ++j) asm volatile("" : "+f"(sums[piece][j])::"memory");
  }
}

#undef HGRN2_WGMMA
#undef HGRN2_SUMS_192
#undef HGRN2_SUMS_160
#undef HGRN2_SUMS_128
#undef HGRN2_SUMS_96
#undef HGRN2_SUMS_64
#undef HGRN2_SUMS
#undef HGRN2_NAMES_80
#undef HGRN2_NAMES_64
#undef HGRN2_NAMES_48
#undef HGRN2_NAMES_32
#undef HGRN2_NAMES_16
#undef HGRN2_NAMES_0

}  // namespace hgrn2::cuda
