// Device-side pieces shared by the recurrence kernels: gates, and the state's storage types.
#pragma once

#include "kernels/cuda/common.cuh"

namespace hgrn2::cuda {

// Forget gate and its complement. `keep` is formed on its own (not as 1 - g): a gate near one must
// not lose its small complement.
struct Gate {
  float g;
  float k;
};

// exp(-x) and 1 / (1 + exp(-x)), whose product is 1 / (1 + exp(x)): both keep their relative
// precision down to 1e-38. kExact: for float32 activations; otherwise the hardware's
// approximations (about 2 ulp).
struct Logistic {
  float e;
  float r;
};
template <bool kExact>
__device__ __forceinline__ Logistic LogisticOf(float x) {
  const float clamped = fmaxf(x, -87.0f);  // exp(87) is finite
  if constexpr (kExact) {
    const float e = expf(-clamped);
    return {e, 1.0f / (1.0f + e)};
  } else {
    float e, r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(clamped * -1.4426950408889634f));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.0f + e));
    return {e, r};
  }
}

template <bool kExact>
__device__ __forceinline__ Gate ForgetGate(float f, float lower_bound) {
  const Logistic l = LogisticOf<kExact>(f);
  const float span = 1.0f - lower_bound;
  return {fmaf(span, l.r, lower_bound), span * (l.e * l.r)};
}

template <bool kExact>
__device__ __forceinline__ float SwishGate(float q) {
  return q * LogisticOf<kExact>(q).r;
}

// A row whose greatest value is below this is stored as zeros: kMaxE4M3 over it must stay finite.
inline constexpr float kLeastE4M3Row = 1e-30f;

// A 16-byte vector of state elements and its float form.
template <typename S>
struct StateVec;

template <>
struct StateVec<float> {
  static constexpr int kSize = 4;
  static __device__ __forceinline__ void Unpack(uint4 raw, float (&x)[4]) {
    x[0] = __uint_as_float(raw.x), x[1] = __uint_as_float(raw.y);
    x[2] = __uint_as_float(raw.z), x[3] = __uint_as_float(raw.w);
  }
  static __device__ __forceinline__ uint4 PackUp(const float (&x)[4]) {
    return {__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
            __float_as_uint(x[3])};
  }
};

template <>
struct StateVec<__half> {
  static constexpr int kSize = 8;
  static __device__ __forceinline__ void Unpack(uint4 raw, float (&x)[8]) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
      x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
  }
  static __device__ __forceinline__ uint4 PackUp(const float (&x)[8]) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __half2 pair = __floats2half2_rn(x[2 * i], x[2 * i + 1]);
      words[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

template <>
struct StateVec<__nv_bfloat16> {
  static constexpr int kSize = 8;
  static __device__ __forceinline__ void Unpack(uint4 raw, float (&x)[8]) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[2 * i] = __uint_as_float(words[i] << 16);
      x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
  static __device__ __forceinline__ uint4 PackUp(const float (&x)[8]) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      words[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

template <>
struct StateVec<__nv_fp8_e4m3> {
  static constexpr int kSize = 16;
  static __device__ __forceinline__ void Unpack(uint4 raw, float (&x)[16]) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const auto bits = static_cast<__nv_fp8x2_storage_t>(words[i / 2] >> (16 * (i % 2)));
      const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(bits, __NV_E4M3);
      const float2 f = __half22float2(__half2(pair));
      x[2 * i] = f.x, x[2 * i + 1] = f.y;
    }
  }
  static __device__ __forceinline__ uint4 PackUp(const float (&x)[16]) {
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t bits =
          __nv_cvt_float2_to_fp8x2(make_float2(x[2 * i], x[2 * i + 1]), __NV_SATFINITE, __NV_E4M3);
      words[i / 2] |= bits << (16 * (i % 2));
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

// One element, for the paths where speed does not matter.
template <typename S>
__device__ __forceinline__ S RoundTo(float x) {
  return S(x);
}

template <typename S>
inline constexpr bool kIsFp8 = false;
template <>
inline constexpr bool kIsFp8<__nv_fp8_e4m3> = true;

template <typename A>
inline constexpr bool kIsFloat = false;
template <>
inline constexpr bool kIsFloat<float> = true;

}  // namespace hgrn2::cuda
