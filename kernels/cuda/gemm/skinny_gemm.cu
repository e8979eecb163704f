#include <cooperative_groups.h>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/gemm/skinny_gemm.h"
#include "kernels/cuda/gemm/wgmma.cuh"

namespace hgrn2::cuda {
namespace {

constexpr int kRows = 128;        // weight rows of a block: two warpgroups of 64
constexpr int kBlockBytes = 128;  // columns of a k-block, in bytes: the width of the swizzle
constexpr int kConsumers = 256;
constexpr int kThreads = kConsumers + 32;  // and a warp that issues copies
constexpr int kMaxStages = 16;
constexpr int kPartialStride = kRows + 4;  // floats; spreads a warp's fragment over all banks

struct KernelParams {
  CUtensorMap weight;
  CUtensorMap x;
  const float* weight_scale;
  const float* x_scale;
  void* out;
  int out_f32;
  int rows;
  int tokens;
  int k_blocks;
  int stages;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HGRN2_HAS_WGMMA 1
#endif

#ifdef HGRN2_HAS_WGMMA
__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void BarrierInit(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(count));
}
__device__ __forceinline__ void BarrierExpect(uint64_t* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}
__device__ __forceinline__ void BarrierArrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
__device__ __forceinline__ void BarrierWait(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n.reg .pred p;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void CopyTile(void* dst, const CUtensorMap* map, int column, int row,
                                         uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(SharedAddress(dst)),
      "l"(map), "r"(column), "r"(row), "r"(SharedAddress(barrier))
      : "memory");
}
// Rows of 128 bytes, 128-byte swizzle: groups of 8 rows are 1024 bytes apart.
__device__ __forceinline__ uint64_t Descriptor(const void* p) {
  const uint64_t address = (SharedAddress(p) & 0x3FFFF) >> 4;
  return address | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

struct Barriers {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
};

// The copying lane. Weights of the first stages are on their way before the kernel ahead has ended.
template <int kN, bool kFp8>
__device__ void Produce(const KernelParams& p, uint8_t* stages, Barriers& barriers, int tile,
                        int first, int count) {
  constexpr int kStage = (kRows + kN) * kBlockBytes;
  constexpr int kColumns = kFp8 ? kBlockBytes : kBlockBytes / 2;
  const auto weights = [&](int i) {
    const int s = i % p.stages;
    BarrierExpect(&barriers.full[s], kStage);
    CopyTile(stages + s * kStage, &p.weight, (first + i) * kColumns, tile * kRows,
             &barriers.full[s]);
  };
  const auto x = [&](int i) {
    const int s = i % p.stages;
    CopyTile(stages + s * kStage + kRows * kBlockBytes, &p.x, (first + i) * kColumns, 0,
             &barriers.full[s]);
  };
  const int ahead = min(count, p.stages);
  for (int i = 0; i < ahead; ++i) weights(i);
  GridDependencyWait();
  for (int i = 0; i < ahead; ++i) x(i);
  for (int i = ahead; i < count; ++i) {
    BarrierWait(&barriers.empty[i % p.stages], (i / p.stages - 1) & 1);
    weights(i);
    x(i);
  }
}

template <int kN, bool kFp8>
__device__ void Multiply(const KernelParams& p, const uint8_t* stages, Barriers& barriers,
                         int count, float (&sums)[kN / 2]) {
  constexpr int kStage = (kRows + kN) * kBlockBytes;
  const int group = threadIdx.x / 128;
  for (int i = 0; i < count; ++i) {
    const int s = i % p.stages;
    BarrierWait(&barriers.full[s], (i / p.stages) & 1);
    const uint64_t a = Descriptor(stages + s * kStage + group * 64 * kBlockBytes);
    const uint64_t b = Descriptor(stages + s * kStage + kRows * kBlockBytes);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < kBlockBytes / 32; ++k) {
      Wgmma<kN, kFp8>::Run(sums, a + k * 2, b + k * 2, i > 0 || k > 0);
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
    if (i > 0 && threadIdx.x % 128 == 0) BarrierArrive(&barriers.empty[(i - 1) % p.stages]);
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int j = 0; j < kN / 2; ++j) asm volatile("" : "+f"(sums[j])::"memory");  // not read earlier
}

// The block's sums as [token][row] floats.
template <int kN>
__device__ void StorePartial(const float (&sums)[kN / 2], float* partial) {
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
  for (int j = 0; j < kN / 8; ++j) {
    float* at = partial + (j * 8 + threadIdx.x % 4 * 2) * kPartialStride + row;
    at[0] = sums[j * 4];
    at[kPartialStride] = sums[j * 4 + 1];
    at[8] = sums[j * 4 + 2];
    at[kPartialStride + 8] = sums[j * 4 + 3];
  }
}
#endif  // HGRN2_HAS_WGMMA

// A cluster of `split` blocks owns a tile of 128 rows; block r of it multiplies the r-th part of
// the columns, then adds all parts, in the order of their ranks, for the r-th part of the tokens.
template <int kN, bool kFp8, int kSplit>
__global__ void __launch_bounds__(kThreads, 1)
    SkinnyGemmKernel(const __grid_constant__ KernelParams p) {
#ifdef HGRN2_HAS_WGMMA
  namespace cg = cooperative_groups;
  extern __shared__ uint8_t raw[];
  __shared__ Barriers barriers;
  uint8_t* stages =
      raw + (1024 - (static_cast<uint32_t>(__cvta_generic_to_shared(raw)) & 1023)) % 1024;
  const cg::cluster_group cluster = cg::this_cluster();
  const int rank = static_cast<int>(cluster.block_rank());
  const int tile = blockIdx.x / kSplit;
  const int first = rank * p.k_blocks / kSplit;
  const int count = (rank + 1) * p.k_blocks / kSplit - first;
  GridDependencyLaunch();
  if (threadIdx.x == 0) {
    for (int s = 0; s < p.stages; ++s) {
      BarrierInit(&barriers.full[s], 1);
      BarrierInit(&barriers.empty[s], kConsumers / 128);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  float* partial = reinterpret_cast<float*>(stages);
  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) {
      Produce<kN, kFp8>(p, stages, barriers, tile, first, count);
    }
    __syncwarp();
  } else {
    float sums[kN / 2];
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
    Multiply<kN, kFp8>(p, stages, barriers, count, sums);
    asm volatile("bar.sync 1, 256;" ::: "memory");  // both warpgroups are done with the stages
    StorePartial<kN>(sums, partial);
  }
  cluster.sync();
  GridDependencyWait();  // every thread, before it reads x_scale or writes out
  const float* parts[kSplit];
#pragma unroll
  for (int peer = 0; peer < kSplit; ++peer) {
    parts[peer] = kSplit == 1 ? partial : cluster.map_shared_rank(partial, peer);
  }
  const int begin = rank * kN / kSplit, end = min((rank + 1) * kN / kSplit, p.tokens);
  for (int i = threadIdx.x; i < (end - begin) * (kRows / 4); i += kThreads) {
    const int t = begin + i / (kRows / 4), r = i % (kRows / 4) * 4;
    float4 part[kSplit];  // all on their way before the first is added
#pragma unroll
    for (int peer = 0; peer < kSplit; ++peer) {
      part[peer] = *reinterpret_cast<const float4*>(parts[peer] + t * kPartialStride + r);
    }
    float4 sum = part[0];
#pragma unroll
    for (int peer = 1; peer < kSplit; ++peer) {
      sum.x += part[peer].x, sum.y += part[peer].y, sum.z += part[peer].z, sum.w += part[peer].w;
    }
    const int row = tile * kRows + r;
    if (kFp8) {
      const float4 w = *reinterpret_cast<const float4*>(p.weight_scale + row);
      const float x = p.x_scale[t];
      sum.x *= w.x * x, sum.y *= w.y * x, sum.z *= w.z * x, sum.w *= w.w * x;
    }
    const int64_t at = static_cast<int64_t>(t) * p.rows + row;
    if (p.out_f32) {
      *reinterpret_cast<float4*>(static_cast<float*>(p.out) + at) = sum;
      continue;
    }
    const __nv_bfloat162 low = __floats2bfloat162_rn(sum.x, sum.y);
    const __nv_bfloat162 high = __floats2bfloat162_rn(sum.z, sum.w);
    uint2 packed;
    packed.x = reinterpret_cast<const uint32_t&>(low);
    packed.y = reinterpret_cast<const uint32_t&>(high);
    *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(p.out) + at) = packed;
  }
  cluster.sync();  // a peer may still read this block's sums
#endif
}

using EncodeFunction = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                    const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                    const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
EncodeFunction encode = nullptr;

// Rows past `rows` read as zeros.
bool MakeMap(const void* data, int64_t rows, int64_t cols, bool fp8, int tile_rows,
             CUtensorMap* map) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(cols) * (fp8 ? 1 : 2)};
  const cuuint32_t box[2] = {fp8 ? 128u : 64u, static_cast<cuuint32_t>(tile_rows)};
  const cuuint32_t steps[2] = {1, 1};
  return encode(map, fp8 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
                const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

using Kernel = void (*)(KernelParams);
template <int kN, bool kFp8>
Kernel KernelForSplit(int split) {
  switch (split) {
    case 1:
      return SkinnyGemmKernel<kN, kFp8, 1>;
    case 2:
      return SkinnyGemmKernel<kN, kFp8, 2>;
    case 4:
      return SkinnyGemmKernel<kN, kFp8, 4>;
  }
  return nullptr;
}
Kernel KernelFor(int token_tile, bool fp8, int split) {
  switch (token_tile) {
    case 32:
      return fp8 ? KernelForSplit<32, true>(split) : KernelForSplit<32, false>(split);
    case 64:
      return fp8 ? KernelForSplit<64, true>(split) : KernelForSplit<64, false>(split);
    case 128:
      return fp8 ? KernelForSplit<128, true>(split) : KernelForSplit<128, false>(split);
  }
  return nullptr;
}

}  // namespace

cudaError_t InitSkinnyGemm() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  HGRN2_CUDA_RETURN_IF_ERROR(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  encode = reinterpret_cast<EncodeFunction>(function);
  int device = 0, major = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  HGRN2_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  if (major != 9) return cudaErrorNotSupported;
  for (const int n : {32, 64, 128}) {
    for (const int split : {1, 2, 4}) {
      for (const bool fp8 : {false, true}) {
        HGRN2_CUDA_RETURN_IF_ERROR(
            cudaFuncSetAttribute(reinterpret_cast<const void*>(KernelFor(n, fp8, split)),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, 224 * 1024));
      }
    }
  }
  return cudaSuccess;
}

cudaError_t SkinnyGemm(const SkinnyGemmParams& q, cudaStream_t stream) {
  const MatrixView& w = q.weight;
  const SkinnyGemmShape shape = ChooseSkinnyGemm(w.rows, w.cols, q.tokens, w.type);
  if (shape.token_tile == 0 || encode == nullptr) return cudaErrorInvalidValue;
  const bool fp8 = w.type == DType::kF8E4M3;
  KernelParams p;
  if (!MakeMap(w.data, w.rows, w.cols, fp8, kRows, &p.weight) ||
      !MakeMap(q.x, q.tokens, w.cols, fp8, shape.token_tile, &p.x)) {
    return cudaErrorInvalidValue;
  }
  p.weight_scale = w.scale;
  p.x_scale = q.x_scale;
  p.out = q.out;
  p.out_f32 = q.out_type == DType::kF32;
  p.rows = static_cast<int>(w.rows);
  p.tokens = q.tokens;
  p.k_blocks = static_cast<int>(w.cols * (fp8 ? 1 : 2) / kBlockBytes);
  p.stages = shape.stages;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(w.rows / kRows * shape.split));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(shape.split), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  config.attrs = attributes;
  config.numAttrs = q.overlap ? 2 : 1;
  const Kernel kernel = KernelFor(shape.token_tile, fp8, shape.split);
  return cudaLaunchKernelEx(&config, kernel, p);
}

}  // namespace hgrn2::cuda
