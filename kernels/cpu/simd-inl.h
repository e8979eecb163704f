// Vector helpers shared by the kernels; included once per Highway target.
#if defined(HGRN2_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HGRN2_KERNELS_CPU_SIMD_INL_H_
#undef HGRN2_KERNELS_CPU_SIMD_INL_H_
#else
#define HGRN2_KERNELS_CPU_SIMD_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hgrn2::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that every multiple of 16 is whole vectors.
using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;
#if HWY_TARGET == HWY_SCALAR
constexpr int kLanes = 1;
#else
constexpr int kLanes = HWY_MIN(HWY_MAX_BYTES / 4, 16);
#endif
#if HWY_MAX_BYTES >= 64 || HWY_ARCH_ARM_A64
constexpr bool kManyRegisters = true;  // 32 of them
#else
constexpr bool kManyRegisters = false;
#endif

// exp(x) for x <= 0, to 2 ulp: no overflow to care for, so about half of hn::Exp's instructions. Zero
// below -87, where the result would be subnormal.
HWY_INLINE VF ExpOfNonPositive(VF x) {
  const DF df;
  const hn::RebindToSigned<DF> di;
  const VF bounded = hn::Max(x, hn::Set(df, -87.0f));
  const VF n = hn::Round(hn::Mul(bounded, hn::Set(df, 1.44269504f)));
  // ln 2 in two parts, the first exact in products with small integers.
  const VF r0 = hn::NegMulAdd(n, hn::Set(df, 0.693359375f), bounded);
  const VF r = hn::NegMulAdd(n, hn::Set(df, -2.12194440e-4f), r0);
  // Taylor's coefficients to r^7: |r| <= ln 2 / 2, the rest is below 6e-9.
  VF p = hn::Set(df, 1.0f / 5040);
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f / 720));
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f / 120));
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f / 24));
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f / 6));
  p = hn::MulAdd(p, r, hn::Set(df, 0.5f));
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::ConvertTo(di, n));
  const VF scaled = hn::BitCast(df, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(df, -87.0f)), scaled);
}

// 1 / x for x in [1, 2].
HWY_INLINE VF Reciprocal(VF x) {
  const DF df;
#if HWY_TARGET == HWY_AVX3
  // 14 bits and one Newton step: a third of a division's time.
  const VF y = hn::ApproximateReciprocal(x);
  return hn::MulAdd(y, hn::NegMulAdd(x, y, hn::Set(df, 1.0f)), y);
#else
  return hn::Div(hn::Set(df, 1.0f), x);
#endif
}

struct Sigmoids {
  VF of_x;
  VF of_minus_x;
};

// Both without overflow or cancellation for any x.
HWY_INLINE Sigmoids SigmoidPair(VF x) {
  const DF df;
  const VF t = ExpOfNonPositive(hn::Neg(hn::Abs(x)));
  const VF large = Reciprocal(hn::Add(hn::Set(df, 1.0f), t));
  const VF small = hn::Mul(t, large);
  const auto negative = hn::Lt(x, hn::Zero(df));
  return {hn::IfThenElse(negative, small, large), hn::IfThenElse(negative, large, small)};
}

HWY_INLINE VF Swish(VF x) { return hn::Mul(x, SigmoidPair(x).of_x); }

// Element types of memory: Load and Store whole vectors of float at an element offset.
struct F32Memory {
  static HWY_INLINE VF Load(const void* p, int64_t at) {
    return hn::LoadU(DF(), static_cast<const float*>(p) + at);
  }
  static HWY_INLINE void Store(VF v, void* p, int64_t at) {
    hn::StoreU(v, DF(), static_cast<float*>(p) + at);
  }
};

struct F16Memory {
  using D16 = hn::Rebind<hwy::float16_t, DF>;
  static HWY_INLINE VF Load(const void* p, int64_t at) {
    const auto* from = static_cast<const uint16_t*>(p) + at;
    return hn::PromoteTo(DF(), hn::LoadU(D16(), reinterpret_cast<const hwy::float16_t*>(from)));
  }
  static HWY_INLINE void Store(VF v, void* p, int64_t at) {
    auto* to = static_cast<uint16_t*>(p) + at;
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
    // Highway's demotion truncates where there is no instruction: round to nearest even first.
    const hn::RebindToUnsigned<DF> du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<13>(bits), hn::Set(du, 1u));
    const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0xFFFu)), odd);
    v = hn::BitCast(DF(), hn::And(rounded, hn::Set(du, 0xFFFFE000u)));
#endif
    hn::StoreU(hn::DemoteTo(D16(), v), D16(), reinterpret_cast<hwy::float16_t*>(to));
  }
};

struct Bf16Memory {
  using DU = hn::RebindToUnsigned<DF>;
  using D16 = hn::Rebind<uint16_t, DU>;
  static HWY_INLINE VF Load(const void* p, int64_t at) {
    const auto bits = hn::LoadU(D16(), static_cast<const uint16_t*>(p) + at);
    return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(DU(), bits)));
  }
  // Nearest even, by hand: Highway's own demotion to bfloat16 truncates.
  static HWY_INLINE void Store(VF v, void* p, int64_t at) {
    const DU du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd));
    // Signed saturation of DemoteTo is exact once the sign is extended from 16 bits.
    const hn::RebindToSigned<DF> di;
    const hn::Rebind<int16_t, decltype(di)> di16;
    const auto extended = hn::ShiftRight<16>(hn::ShiftLeft<16>(hn::BitCast(di, rounded)));
    hn::StoreU(hn::DemoteTo(di16, extended), di16, static_cast<int16_t*>(p) + at);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace hgrn2::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
