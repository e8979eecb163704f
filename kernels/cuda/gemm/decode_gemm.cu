#include <cooperative_groups.h>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/gemm/decode_gemm.h"
#include "kernels/cuda/gemm/decode_gemm_kernel.cuh"

namespace hgrn2::cuda {
namespace gemm {
namespace {

#ifdef HGRN2_HAS_WGMMA
// Where a block is in the product.
struct Place {
  int split;  // rank in the cluster
  int row_tile;
  int first, count;  // k-blocks

  __device__ explicit Place(const KernelParams& p) {
    row_tile = blockIdx.x / p.split;
    split = blockIdx.x % p.split;
    first = split * p.k_blocks / p.split;
    count = (split + 1) * p.k_blocks / p.split - first;
  }
};

// The copying lane. Weights of the first stages are on their way before the kernel ahead has ended.
template <int kN, int kM, bool kFp8>
__device__ void Produce(const KernelParams& p, const Place& place, uint8_t* stages,
                        Barriers& barriers) {
  constexpr int kRows = kM * 64, kHalf = kRows / 2, kStage = (kRows + kN) * kBlockBytes;
  constexpr int kColumns = kFp8 ? kBlockBytes : kBlockBytes / 2;
  const int row0 = p.half_rows > 0 ? place.row_tile * kHalf : place.row_tile * kRows;
  const int row1 = p.half_rows > 0 ? p.half_rows + row0 : row0 + kHalf;
  const auto weights = [&](int i) {
    const int s = i % p.stages, column = (place.first + i) * kColumns;
    uint8_t* to = stages + s * kStage;
    BarrierExpect(&barriers.full[s], kStage);
    CopyTile(to, &p.weight, column, row0, &barriers.full[s]);
    CopyTile(to + kHalf * kBlockBytes, &p.weight, column, row1, &barriers.full[s]);
  };
  const auto x = [&](int i) {
    const int s = i % p.stages;
    CopyTile(stages + s * kStage + kRows * kBlockBytes, &p.x, (place.first + i) * kColumns, 0,
             &barriers.full[s]);
  };
  const int ahead = min(place.count, p.stages);
  for (int i = 0; i < ahead; ++i) weights(i);
  GridDependencyWait();
  for (int i = 0; i < ahead; ++i) x(i);
  for (int i = ahead; i < place.count; ++i) {
    BarrierWait(&barriers.empty[i % p.stages], (i / p.stages - 1) & 1);
    weights(i);
    x(i);
  }
}

template <int kN, int kM, bool kFp8>
__device__ void Multiply(const KernelParams& p, const Place& place, const uint8_t* stages,
                         Barriers& barriers, float (&sums)[kN / 2]) {
  constexpr int kRows = kM * 64, kStage = (kRows + kN) * kBlockBytes;
  const int group = threadIdx.x / 128;
  for (int i = 0; i < place.count; ++i) {
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
template <int kN, int kM>
__device__ void StorePartial(const float (&sums)[kN / 2], float* partial) {
  constexpr int kStride = kM * 64 + 4;  // spreads a warp's fragment over all banks
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
  for (int j = 0; j < kN / 8; ++j) {
    float* at = partial + (j * 8 + threadIdx.x % 4 * 2) * kStride + row;
    at[0] = sums[j * 4];
    at[kStride] = sums[j * 4 + 1];
    at[8] = sums[j * 4 + 2];
    at[kStride + 8] = sums[j * 4 + 3];
  }
}

// What a token's sums are multiplied by.
__device__ __forceinline__ float TokenScale(const KernelParams& p, int t) {
  float scale = p.x_scale ? p.x_scale[t] : 1.0f;
  if (p.square_sums) {
    const float* squares = p.square_sums + static_cast<int64_t>(t) * p.num_square_sums;
    float sum = 0;
    int i = 0;
    if (p.num_square_sums % 4 == 0) {
#pragma unroll 8
      for (; i < p.num_square_sums; i += 4) {
        const float4 v = *reinterpret_cast<const float4*>(squares + i);
        sum += (v.x + v.y) + (v.z + v.w);
      }
    }
    for (; i < p.num_square_sums; ++i) sum += squares[i];
    scale *= rsqrtf(sum / p.cols + p.eps);
  }
  return scale;
}

__device__ __forceinline__ void Store4(__nv_bfloat16* to, const float4& v) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(v.x, v.y),
                       high = __floats2bfloat162_rn(v.z, v.w);
  uint2 packed;
  packed.x = reinterpret_cast<const uint32_t&>(low);
  packed.y = reinterpret_cast<const uint32_t&>(high);
  *reinterpret_cast<uint2*>(to) = packed;
}

// The finished sums of 4 rows and one token; parts of a split are added in the order of their
// ranks.
template <int kM>
struct Sums {
  static constexpr int kStride = kM * 64 + 4;
  const KernelParams& p;
  const float* parts[4];
  const float* token_scale;

  __device__ float4 At(int t, int r, int row) const {
    float4 part[4];  // all on their way before the first is added
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if (s < p.split) part[s] = *reinterpret_cast<const float4*>(parts[s] + t * kStride + r);
    }
    float4 sum = part[0];
#pragma unroll
    for (int s = 1; s < 4; ++s) {
      if (s < p.split) {
        sum.x += part[s].x, sum.y += part[s].y, sum.z += part[s].z, sum.w += part[s].w;
      }
    }
    const float scale = token_scale[t];
    if (p.weight_scale) {
      const float4 w = *reinterpret_cast<const float4*>(p.weight_scale + row);
      sum.x *= w.x, sum.y *= w.y, sum.z *= w.z, sum.w *= w.w;
    }
    return make_float4(sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale);
  }
};

// x += sums, and what the next product needs: x times its norm's weight, sums of squares. 16 lanes
// have 64 rows of a token.
template <int kM>
__device__ void AddToResidual(const KernelParams& p, const Place& place, const Sums<kM>& sums,
                              int begin, int end) {
  constexpr int kQuads = kM * 16;
  static_assert(kSquareSumRows == 64);
  const int64_t parts = CeilDiv(p.rows, kSquareSumRows);
#pragma unroll 2
  for (int i = threadIdx.x; i < (end - begin) * kQuads; i += kThreads<kM>) {
    const int t = begin + i / kQuads, r = i % kQuads * 4, row = place.row_tile * kM * 64 + r;
    const int64_t at = static_cast<int64_t>(t) * p.rows + row;
    float square = 0;
    if (row < p.rows) {
      float4 x = *reinterpret_cast<const float4*>(p.residual + at);
      const float4 v = sums.At(t, r, row);
      x.x += v.x, x.y += v.y, x.z += v.z, x.w += v.w;
      *reinterpret_cast<float4*>(p.residual + at) = x;
      square = x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
      if (p.next_norm) {
        const float4 norm = *reinterpret_cast<const float4*>(p.next_norm + row);
        Store4(static_cast<__nv_bfloat16*>(p.out) + at,
               make_float4(x.x * norm.x, x.y * norm.y, x.z * norm.z, x.w * norm.w));
      }
    }
    if (!p.next_norm) continue;
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) {
      square += __shfl_xor_sync(0xffffu << (threadIdx.x & 16), square, offset);
    }
    if (threadIdx.x % 16 == 0 && row < p.rows) {
      p.square_sums_out[t * parts + row / kSquareSumRows] = square;
    }
  }
}

__device__ __forceinline__ float FastSwish(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

template <int kM>
__device__ void StoreSwiGlu(const KernelParams& p, const Place& place, const Sums<kM>& sums,
                            int begin, int end) {
  constexpr int kHalf = kM * 32, kQuads = kHalf / 4;
  __nv_bfloat16* out = static_cast<__nv_bfloat16*>(p.out);
#pragma unroll 2
  for (int i = threadIdx.x; i < (end - begin) * kQuads; i += kThreads<kM>) {
    const int t = begin + i / kQuads, r = i % kQuads * 4, row = place.row_tile * kHalf + r;
    if (row >= p.half_rows) continue;
    const float4 g = sums.At(t, r, row), u = sums.At(t, kHalf + r, p.half_rows + row);
    Store4(out + static_cast<int64_t>(t) * p.half_rows + row,
           make_float4(FastSwish(g.x) * u.x, FastSwish(g.y) * u.y, FastSwish(g.z) * u.z,
                       FastSwish(g.w) * u.w));
  }
}

template <int kM>
__device__ void StoreSums(const KernelParams& p, const Place& place, const Sums<kM>& sums,
                          int begin, int end) {
  constexpr int kQuads = kM * 16;
#pragma unroll 4
  for (int i = threadIdx.x; i < (end - begin) * kQuads; i += kThreads<kM>) {
    const int t = begin + i / kQuads, r = i % kQuads * 4, row = place.row_tile * kM * 64 + r;
    if (row >= p.rows) continue;
    const float4 v = sums.At(t, r, row);
    const int64_t at = static_cast<int64_t>(t) * p.rows + row;
    if (p.out_f32) {
      *reinterpret_cast<float4*>(static_cast<float*>(p.out) + at) = v;
    } else {
      Store4(static_cast<__nv_bfloat16*>(p.out) + at, v);
    }
  }
}
#endif  // HGRN2_HAS_WGMMA

// A cluster has a tile of rows, cut along the columns into `split` blocks. Block s multiplies the
// s-th part of the columns, then finishes the s-th part of the tokens with everybody's sums.
template <int kN, int kM, bool kFp8>
__global__ void __launch_bounds__(kThreads<kM>, 1)
    DecodeGemmKernel(const __grid_constant__ KernelParams p) {
#ifdef HGRN2_HAS_WGMMA
  namespace cg = cooperative_groups;
  constexpr int kConsumers = kM * 128;
  extern __shared__ uint8_t raw[];
  __shared__ Barriers barriers;
  __shared__ float token_scale[kN];
  uint8_t* stages =
      raw + (1024 - (static_cast<uint32_t>(__cvta_generic_to_shared(raw)) & 1023)) % 1024;
  const cg::cluster_group cluster = cg::this_cluster();
  const Place place(p);
  GridDependencyLaunch();
  if (threadIdx.x == 0) {
    for (int s = 0; s < p.stages; ++s) {
      BarrierInit(&barriers.full[s], 1);
      BarrierInit(&barriers.empty[s], kM);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  float* partial = reinterpret_cast<float*>(stages);
  const int begin = place.split * kN / p.split;
  const int end = min((place.split + 1) * kN / p.split, p.tokens);
  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) Produce<kN, kM, kFp8>(p, place, stages, barriers);
    __syncwarp();
    GridDependencyWait();
  } else {
    GridDependencyWait();  // every thread: what it reads and writes from here on is others'
    if (begin + static_cast<int>(threadIdx.x) < end) {
      token_scale[begin + threadIdx.x] = TokenScale(p, begin + threadIdx.x);
    }
    float sums[kN / 2];
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
    Multiply<kN, kM, kFp8>(p, place, stages, barriers, sums);
    asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");  // all are done with the stages
    StorePartial<kN, kM>(sums, partial);
  }
  if (p.split > 1) {
    cluster.sync();
  } else {
    __syncthreads();
  }
  Sums<kM> sums = {p, {}, token_scale};
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    if (s >= p.split) break;
    sums.parts[s] = p.split == 1 ? partial : cluster.map_shared_rank(partial, s);
  }
  if (p.epilogue == GemmEpilogue::kResidual) {
    AddToResidual<kM>(p, place, sums, begin, end);
  } else if (p.epilogue == GemmEpilogue::kSwiGlu) {
    StoreSwiGlu<kM>(p, place, sums, begin, end);
  } else {
    StoreSums<kM>(p, place, sums, begin, end);
  }
  if (p.split > 1) cluster.sync();  // a peer may still read this block's sums
#endif
}

using EncodeFunction = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                    const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                    const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
EncodeFunction encode = nullptr;

// Rows and columns past the end read as zeros.
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
template <int kM, bool kFp8>
Kernel KernelOfRows(int token_tile) {
  switch (token_tile) {
    case 32:
      return DecodeGemmKernel<32, kM, kFp8>;
    case 64:
      return DecodeGemmKernel<64, kM, kFp8>;
    case 128:
      return DecodeGemmKernel<128, kM, kFp8>;
  }
  return nullptr;
}
Kernel KernelFor(int row_tile, int token_tile, bool fp8) {
  if (row_tile == 64)
    return fp8 ? KernelOfRows<1, true>(token_tile) : KernelOfRows<1, false>(token_tile);
  return fp8 ? KernelOfRows<2, true>(token_tile) : KernelOfRows<2, false>(token_tile);
}

bool Complete(const DecodeGemmParams& q) {
  if (q.weight.type == DType::kF8E4M3 && (!q.weight.scale || !q.x_scale)) return false;
  switch (q.epilogue) {
    case GemmEpilogue::kStore:
      return q.out && (q.out_type == DType::kF32 || q.out_type == DType::kBF16);
    case GemmEpilogue::kSwiGlu:
      return q.out && q.out_type == DType::kBF16;
    case GemmEpilogue::kResidual:
      return q.residual && (!q.next_norm || (q.out && q.square_sums_out));
  }
  return false;
}

}  // namespace
}  // namespace gemm

cudaError_t InitDecodeGemm() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  HGRN2_CUDA_RETURN_IF_ERROR(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  int device = 0, major = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  HGRN2_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  if (major != 9) return cudaErrorNotSupported;
  gemm::encode = reinterpret_cast<gemm::EncodeFunction>(function);
  for (const int rows : {64, 128}) {
    for (const int tokens : {32, 64, 128}) {
      for (const bool fp8 : {false, true}) {
        HGRN2_CUDA_RETURN_IF_ERROR(
            cudaFuncSetAttribute(reinterpret_cast<const void*>(gemm::KernelFor(rows, tokens, fp8)),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, 224 * 1024));
      }
    }
  }
  return cudaSuccess;
}

cudaError_t DecodeGemm(const DecodeGemmParams& q, cudaStream_t stream) {
  const MatrixView& w = q.weight;
  return DecodeGemm(q, ChooseDecodeGemm(w.rows, w.cols, q.tokens, w.type, q.epilogue), stream);
}

cudaError_t DecodeGemm(const DecodeGemmParams& q, const DecodeGemmShape& shape,
                       cudaStream_t stream) {
  const MatrixView& w = q.weight;
  if (shape.row_tile == 0 || gemm::encode == nullptr || !gemm::Complete(q)) {
    return cudaErrorInvalidValue;
  }
  const bool fp8 = w.type == DType::kF8E4M3;
  gemm::KernelParams p;
  if (!gemm::MakeMap(w.data, w.rows, w.cols, fp8, shape.row_tile / 2, &p.weight) ||
      !gemm::MakeMap(q.x, q.tokens, w.cols, fp8, shape.token_tile, &p.x)) {
    return cudaErrorInvalidValue;
  }
  p.weight_scale = fp8 ? w.scale : nullptr;
  p.x_scale = fp8 ? q.x_scale : nullptr;
  p.square_sums = q.square_sums;
  p.num_square_sums = q.num_square_sums;
  p.eps = q.eps;
  p.epilogue = q.epilogue;
  p.out = q.out;
  p.out_f32 = q.out_type == DType::kF32;
  p.residual = q.residual;
  p.next_norm = q.next_norm;
  p.square_sums_out = q.square_sums_out;
  p.rows = static_cast<int>(w.rows);
  p.half_rows = q.epilogue == GemmEpilogue::kSwiGlu ? static_cast<int>(w.rows / 2) : 0;
  p.cols = static_cast<float>(w.cols);
  p.tokens = q.tokens;
  p.k_blocks = static_cast<int>(CeilDiv(w.cols * (fp8 ? 1 : 2), gemm::kBlockBytes));
  p.stages = shape.stages;
  p.split = shape.split;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks()));
  config.blockDim = dim3(static_cast<unsigned>(shape.row_tile * 2 + 32));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(shape.split), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  config.attrs = attributes;
  config.numAttrs = q.overlap ? 2 : 1;
  const gemm::Kernel kernel = gemm::KernelFor(shape.row_tile, shape.token_tile, fp8);
  return cudaLaunchKernelEx(&config, kernel, p);
}

}  // namespace hgrn2::cuda
