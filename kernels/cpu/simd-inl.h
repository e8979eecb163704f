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

// Without overflow for any x: only exp of non-positive numbers is taken.
HWY_INLINE VF Sigmoid(VF x) {
  const DF df;
  const VF one = hn::Set(df, 1.0f);
  const VF t = hn::Exp(df, hn::Neg(hn::Abs(x)));
  const VF s = hn::Div(one, hn::Add(one, t));
  return hn::IfThenElse(hn::Lt(x, hn::Zero(df)), hn::Mul(t, s), s);
}

HWY_INLINE VF Swish(VF x) { return hn::Mul(x, Sigmoid(x)); }

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
