#include "kernels/cpu/ops.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu/packed_matrix.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/ops.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace hgrn2::cpu {
namespace HWY_NAMESPACE {

float SumOfSquares(const float* x, int padded) {
  const DF df;
  VF sum[4] = {hn::Zero(df), hn::Zero(df), hn::Zero(df), hn::Zero(df)};
  int i = 0;
  for (; i + 4 * kLanes <= padded; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const VF v = hn::LoadU(df, x + i + j * kLanes);
      sum[j] = hn::MulAdd(v, v, sum[j]);
    }
  }
  for (; i < padded; i += kLanes) {
    const VF v = hn::LoadU(df, x + i);
    sum[0] = hn::MulAdd(v, v, sum[0]);
  }
  const VF all = hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]));
  return hn::GetLane(hn::SumOfLanes(df, all));
}

template <class Out>
void RmsNormTo(const RmsNormParams& p) {
  const float mean = SumOfSquares(p.x, p.padded) / static_cast<float>(p.size);
  const VF scale = hn::Set(DF(), 1.0f / std::sqrt(mean + p.eps));
  for (int i = 0; i < p.padded; i += kLanes) {
    const VF v = hn::Mul(F32Memory::Load(p.x, i), scale);
    Out::Store(hn::Mul(v, F32Memory::Load(p.weight, i)), p.out, i);
  }
}

void RmsNormImpl(const RmsNormParams& p) {
  p.out_dtype == DType::kBF16 ? RmsNormTo<Bf16Memory>(p) : RmsNormTo<F32Memory>(p);
}

template <class Out>
void SwiGluTo(const SwiGluParams& p) {
  for (int row = 0; row < p.rows; ++row) {
    for (int panel = 0; panel < p.num_panels; ++panel) {
      const float* in = p.gate_up + row * p.ld + panel * 32;
      for (int i = 0; i < 16; i += kLanes) {
        const VF product = hn::Mul(Swish(F32Memory::Load(in, i)), F32Memory::Load(in, 16 + i));
        Out::Store(product, p.out, row * p.ldo + panel * 16 + i);
      }
    }
  }
}

void SwiGluImpl(const SwiGluParams& p) {
  p.out_dtype == DType::kBF16 ? SwiGluTo<Bf16Memory>(p) : SwiGluTo<F32Memory>(p);
}

// One vector of channels. Rows go from the newest to the oldest, so that inputs are still there
// when the output that replaces them has been made.
void ShortConvChannels(const ShortConvParams& p, int channel) {
  const DF df;
  const int past = p.size - 1;
  float* x = p.x + channel;
  float* history = p.history + channel;
  // Virtual row t of history followed by x.
  VF newest[kMaxConvSize];
  for (int j = 0; j < past; ++j) {
    const int t = p.rows + j;
    newest[j] = hn::LoadU(df, t < past ? history + t * p.ldw : x + (t - past) * p.ldx);
  }
  for (int t = p.rows - 1; t >= 0; --t) {
    VF sum = hn::Zero(df);
    for (int j = 0; j < p.size; ++j) {
      const int from = t - past + j;
      const VF in = hn::LoadU(df, from < 0 ? history + (past + from) * p.ldw : x + from * p.ldx);
      sum = hn::MulAdd(hn::LoadU(df, p.weight + j * p.ldw + channel), in, sum);
    }
    hn::StoreU(sum, df, x + t * p.ldx);
  }
  for (int j = 0; j < past; ++j) hn::StoreU(newest[j], df, history + j * p.ldw);
}

void ShortConvImpl(const ShortConvParams& p) {
  for (int c = 0; c < p.channels; c += kLanes) ShortConvChannels(p, c);
}

template <class From, class To>
int64_t ConvertVectors(const void* from, int64_t n, void* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) To::Store(From::Load(from, i), to, i);
  return i;
}

int64_t ConvertToFloatImpl(const void* from, DType dtype, int64_t n, float* to) {
  if (dtype == DType::kF16) return ConvertVectors<F16Memory, F32Memory>(from, n, to);
  if (dtype == DType::kBF16) return ConvertVectors<Bf16Memory, F32Memory>(from, n, to);
  return 0;
}

int64_t ConvertFromFloatImpl(const float* from, DType dtype, int64_t n, void* to) {
  if (dtype == DType::kF16) return ConvertVectors<F32Memory, F16Memory>(from, n, to);
  if (dtype == DType::kBF16) return ConvertVectors<F32Memory, Bf16Memory>(from, n, to);
  return 0;
}

}  // namespace HWY_NAMESPACE
}  // namespace hgrn2::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hgrn2::cpu {

HWY_EXPORT(RmsNormImpl);
HWY_EXPORT(SwiGluImpl);
HWY_EXPORT(ShortConvImpl);
HWY_EXPORT(ConvertToFloatImpl);
HWY_EXPORT(ConvertFromFloatImpl);

void RmsNorm(const RmsNormParams& params) { HWY_DYNAMIC_DISPATCH(RmsNormImpl)(params); }
void SwiGlu(const SwiGluParams& params) { HWY_DYNAMIC_DISPATCH(SwiGluImpl)(params); }
void ShortConv(const ShortConvParams& params) { HWY_DYNAMIC_DISPATCH(ShortConvImpl)(params); }

void ConvertToFloat(const void* from, DType dtype, int64_t n, float* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(n) * 4);
    return;
  }
  int64_t i = HWY_DYNAMIC_DISPATCH(ConvertToFloatImpl)(from, dtype, n, to);
  for (; i < n; ++i) to[i] = ToFloat(static_cast<const uint8_t*>(from) + i * SizeOf(dtype), dtype);
}

void ConvertFromFloat(const float* from, DType dtype, int64_t n, void* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(n) * 4);
    return;
  }
  int64_t i = HWY_DYNAMIC_DISPATCH(ConvertFromFloatImpl)(from, dtype, n, to);
  for (; i < n; ++i) {
    static_cast<uint16_t*>(to)[i] =
        dtype == DType::kF16 ? FloatToHalf(from[i]) : FloatToBf16(from[i]);
  }
}

}  // namespace hgrn2::cpu
#endif  // HWY_ONCE
