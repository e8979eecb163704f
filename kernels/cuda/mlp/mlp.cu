#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/mlp/mlp.h"

namespace hgrn2::cuda {
namespace {

template <typename T>
__global__ void EmbedKernel(const EmbedParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int64_t t = blockIdx.x;
  const int slot = p.slots[t];
  int64_t token = p.tokens[t];
  if (slot >= 0 && token < 0) token = p.last_token[slot];
  if (slot < 0) token = 0;
  if (threadIdx.x == 0) {
    if (p.resolved) p.resolved[t] = static_cast<int32_t>(token);
    if (p.step && t == 0) ++*p.step;
  }
  if (!p.x) return;
  float* x = p.x + t * p.d;
  const T* row = static_cast<const T*>(p.table) + token * p.d;
  for (int i = threadIdx.x * 4; i < p.d; i += blockDim.x * 4) {
    float4 v = make_float4(0, 0, 0, 0);
    if (slot >= 0) {
      v = make_float4(ToFloat(row[i]), ToFloat(row[i + 1]), ToFloat(row[i + 2]),
                      ToFloat(row[i + 3]));
    }
    *reinterpret_cast<float4*>(x + i) = v;
  }
}

template <typename T>
__device__ __forceinline__ void SwiGluPack(const T* gate, const T* up, float* out) {
  const Pack<T> g = *reinterpret_cast<const Pack<T>*>(gate);
  const Pack<T> u = *reinterpret_cast<const Pack<T>*>(up);
#pragma unroll
  for (int j = 0; j < Pack<T>::kSize; ++j) out[j] = Swish(ToFloat(g.v[j])) * ToFloat(u.v[j]);
}

__device__ __forceinline__ void ScaledSwiGluPack(const __nv_bfloat16* gate, const __nv_bfloat16* up,
                                                 const float* gate_scale, const float* up_scale,
                                                 float row_scale, float (&out)[8]) {
  const auto g = *reinterpret_cast<const Pack<__nv_bfloat16>*>(gate);
  const auto u = *reinterpret_cast<const Pack<__nv_bfloat16>*>(up);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const Pack<float> gs = *reinterpret_cast<const Pack<float>*>(gate_scale + 4 * h);
    const Pack<float> us = *reinterpret_cast<const Pack<float>*>(up_scale + 4 * h);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      out[4 * h + j] = Swish(ToFloat(g.v[4 * h + j]) * row_scale * gs.v[j]) *
                       (ToFloat(u.v[4 * h + j]) * row_scale * us.v[j]);
    }
  }
}

// Grid: x over the row's packs, y over rows.
template <typename T>
__global__ void SwiGluKernel(const SwiGluParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  constexpr int kSize = Pack<T>::kSize;
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * kSize;
  if (i >= p.m) return;
  const int64_t row = blockIdx.y;
  const T* gate = static_cast<const T*>(p.gate_up) + row * 2 * p.m + i;
  float v[kSize];
  SwiGluPack(gate, gate + p.m, v);
  Pack<T> out;
#pragma unroll
  for (int j = 0; j < kSize; ++j) out.v[j] = FromFloat<T>(v[j]);
  *reinterpret_cast<Pack<T>*>(static_cast<T*>(p.out) + row * p.m + i) = out;
}

// Writes the row's values of all threads of a block, which are in registers, in e4m3; the row's
// scale is its maximum / 448. v[c]: the 8 values at (threadIdx.x + c * blockDim.x) * 8.
template <int kPacks>
__device__ __forceinline__ void StoreRowF8(const float (&v)[kPacks][8], float amax, int cols,
                                           float* scratch, uint8_t* out, float* scale) {
  amax = fmaxf(BlockReduce<true>(amax, scratch), 1e-12f);
  const float quantise = kMaxE4M3 / amax;
  if (threadIdx.x == 0) *scale = amax / kMaxE4M3;
#pragma unroll
  for (int c = 0; c < kPacks; ++c) {
    const int i = (threadIdx.x + c * blockDim.x) * 8;
    if (i >= cols) continue;
    uint2 raw;
    raw.x = __nv_fp8x4_e4m3(make_float4(v[c][0] * quantise, v[c][1] * quantise, v[c][2] * quantise,
                                        v[c][3] * quantise))
                .__x;
    raw.y = __nv_fp8x4_e4m3(make_float4(v[c][4] * quantise, v[c][5] * quantise, v[c][6] * quantise,
                                        v[c][7] * quantise))
                .__x;
    *reinterpret_cast<uint2*>(out + i) = raw;
  }
}

// One block per row: values wait in registers for the row's maximum.
template <int kPacks>
__global__ void SwiGluF8Kernel(const SwiGluParams p) {
  __shared__ float scratch[32];
  GridDependencyLaunch();
  GridDependencyWait();
  using T = __nv_bfloat16;
  const int64_t row = blockIdx.x;
  const T* gate = static_cast<const T*>(p.gate_up) + row * 2 * p.m;
  const float row_scale = p.col_scale ? p.row_scale[row] : 1.0f;
  float v[kPacks][8];
  float amax = 0;
#pragma unroll
  for (int c = 0; c < kPacks; ++c) {
    const int i = (threadIdx.x + c * blockDim.x) * 8;
    if (i >= p.m) continue;
    if (p.col_scale) {
      ScaledSwiGluPack(gate + i, gate + p.m + i, p.col_scale + i, p.col_scale + p.m + i, row_scale,
                       v[c]);
    } else {
      SwiGluPack(gate + i, gate + p.m + i, v[c]);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) amax = fmaxf(amax, fabsf(v[c][j]));
  }
  StoreRowF8(v, amax, p.m, scratch, static_cast<uint8_t*>(p.out) + row * p.m, p.out_scale + row);
}

template <typename S, typename D>
__global__ void ConvertKernel(const S* src, D* dst, int64_t size) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    dst[i] = FromFloat<D>(ToFloat(src[i]));
  }
}

template <typename S>
__global__ void QuantizeRowsKernel(const QuantizeRowsParams p) {
  __shared__ float scratch[32];
  const int64_t row = blockIdx.x;
  const S* src = static_cast<const S*>(p.src) + row * p.cols;
  const auto value = [&](int64_t i) {
    return p.col_factor ? ToFloat(src[i]) * p.col_factor[i] : ToFloat(src[i]);
  };
  float amax = 0;
  for (int64_t i = threadIdx.x; i < p.cols; i += blockDim.x) amax = fmaxf(amax, fabsf(value(i)));
  amax = fmaxf(BlockReduce<true>(amax, scratch), 1e-12f);
  if (threadIdx.x == 0) p.scale[row] = amax / kMaxE4M3;
  const float quantise = kMaxE4M3 / amax;
  __nv_fp8_e4m3* dst = static_cast<__nv_fp8_e4m3*>(p.dst) + row * p.cols;
  for (int64_t i = threadIdx.x; i < p.cols; i += blockDim.x) {
    dst[i] = __nv_fp8_e4m3(value(i) * quantise);
  }
}

template <typename S>
cudaError_t ConvertFrom(const ConvertParams& p, cudaStream_t stream) {
  const S* src = static_cast<const S*>(p.src);
  const unsigned blocks = static_cast<unsigned>(p.size < 1048576 ? CeilDiv(p.size, 256) : 4096);
  switch (p.dst_type) {
    case DType::kF32:
      return Launch(ConvertKernel<S, float>, blocks, 256, 0, stream, false, src,
                    static_cast<float*>(p.dst), p.size);
    case DType::kF16:
      return Launch(ConvertKernel<S, __half>, blocks, 256, 0, stream, false, src,
                    static_cast<__half*>(p.dst), p.size);
    case DType::kBF16:
      return Launch(ConvertKernel<S, __nv_bfloat16>, blocks, 256, 0, stream, false, src,
                    static_cast<__nv_bfloat16*>(p.dst), p.size);
    default:
      return cudaErrorInvalidValue;
  }
}

// A block per row: the instance of 1, 3 or 4 packs of 8 values a thread.
cudaError_t LaunchSwiGluF8(const SwiGluParams& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(p.rows));
  const int packs = p.m / 8;
  if (packs <= 256) return Launch(SwiGluF8Kernel<1>, grid, 256, 0, stream, p.overlap, p);
  if (packs <= 768) return Launch(SwiGluF8Kernel<3>, grid, 256, 0, stream, p.overlap, p);
  if (packs <= 1536) return Launch(SwiGluF8Kernel<3>, grid, 512, 0, stream, p.overlap, p);
  if (packs <= 4096) return Launch(SwiGluF8Kernel<4>, grid, 1024, 0, stream, p.overlap, p);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t Embed(const EmbedParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  if (p.d % 8 != 0) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(p.rows)), block(p.d >= 1024 ? 256 : 64);
  if (p.table_type == DType::kF32) {
    return Launch(EmbedKernel<float>, grid, block, 0, stream, false, p);
  }
  if (p.table_type != DType::kBF16) return cudaErrorInvalidValue;
  return Launch(EmbedKernel<__nv_bfloat16>, grid, block, 0, stream, false, p);
}

cudaError_t SwiGlu(const SwiGluParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  if (p.m <= 0 || p.m % 8 != 0) return cudaErrorInvalidValue;
  if (p.out_type == DType::kF8E4M3) {
    if (p.type != DType::kBF16 || !p.out_scale || !p.col_scale != !p.row_scale) {
      return cudaErrorInvalidValue;
    }
    return LaunchSwiGluF8(p, stream);
  }
  if (p.out_type != p.type || p.col_scale) return cudaErrorInvalidValue;
  const bool f32 = p.type == DType::kF32;
  if (p.rows > 65535) return cudaErrorInvalidValue;
  const int64_t packs = p.m / (f32 ? 4 : 8);
  // Few idle threads in a row's last block: m = 5632 is 704 packs, 5.5 blocks of 128.
  const dim3 grid(static_cast<unsigned>(CeilDiv(packs, 128)), static_cast<unsigned>(p.rows));
  return f32 ? Launch(SwiGluKernel<float>, grid, 128, 0, stream, p.overlap, p)
             : Launch(SwiGluKernel<__nv_bfloat16>, grid, 128, 0, stream, p.overlap, p);
}

cudaError_t Convert(const ConvertParams& p, cudaStream_t stream) {
  if (p.size == 0) return cudaSuccess;
  switch (p.src_type) {
    case DType::kF32:
      return ConvertFrom<float>(p, stream);
    case DType::kF16:
      return ConvertFrom<__half>(p, stream);
    case DType::kBF16:
      return ConvertFrom<__nv_bfloat16>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t QuantizeRows(const QuantizeRowsParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(p.rows));
  switch (p.src_type) {
    case DType::kF32:
      return Launch(QuantizeRowsKernel<float>, grid, 256, 0, stream, false, p);
    case DType::kF16:
      return Launch(QuantizeRowsKernel<__half>, grid, 256, 0, stream, false, p);
    case DType::kBF16:
      return Launch(QuantizeRowsKernel<__nv_bfloat16>, grid, 256, 0, stream, false, p);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hgrn2::cuda
