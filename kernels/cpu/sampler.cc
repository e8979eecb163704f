#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/packed_matrix.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sampler.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace hgrn2::cpu {
namespace HWY_NAMESPACE {

using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using VU = hn::Vec<DU>;

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

float MaxOf(const float* x, int padded) {
  const DF df;
  VF best = hn::Set(df, kNegInf);
  for (int i = 0; i < padded; i += kLanes) best = hn::Max(best, hn::LoadU(df, x + i));
  return hn::GetLane(hn::MaxOfLanes(df, best));
}

float SumExp(const float* x, int padded, float shift) {
  const DF df;
  const VF s = hn::Set(df, shift);
  VF sum0 = hn::Zero(df);
  VF sum1 = hn::Zero(df);
  for (int i = 0; i < padded; i += kLanes) {
    // Two sums in turn: half the chain, half the rounding.
    const VF next = hn::Add(sum0, hn::Exp(df, hn::Sub(hn::LoadU(df, x + i), s)));
    sum0 = sum1;
    sum1 = next;
  }
  return hn::GetLane(hn::SumOfLanes(df, hn::Add(sum0, sum1)));
}

float LogSumExpImpl(const float* x, int padded) {
  const float max = MaxOf(x, padded);
  if (!(max > kNegInf)) return max;
  return max + std::log(SumExp(x, padded, max));
}

int32_t CountGreaterImpl(const float* x, int padded, float value) {
  const DF df;
  const VF v = hn::Set(df, value);
  size_t count = 0;
  for (int i = 0; i < padded; i += kLanes) {
    count += hn::CountTrue(df, hn::Gt(hn::LoadU(df, x + i), v));
  }
  return static_cast<int32_t>(count);
}

// Lowest index of the greatest value; 0 if all are -inf.
int32_t ArgMax(const float* x, int padded) {
  const DF df;
  const DI di;
  VF best = hn::Set(df, kNegInf);
  auto best_id = hn::Zero(di);
  for (int i = 0; i < padded; i += kLanes) {
    const VF v = hn::LoadU(df, x + i);
    const auto greater = hn::Gt(v, best);
    best = hn::IfThenElse(greater, v, best);
    best_id = hn::IfThenElse(hn::RebindMask(di, greater), hn::Iota(di, i), best_id);
  }
  const VF max = hn::MaxOfLanes(df, best);
  const auto is_max = hn::RebindMask(di, hn::Eq(best, max));
  const auto none = hn::Set(di, std::numeric_limits<int32_t>::max());
  const int32_t id = hn::GetLane(hn::MinOfLanes(di, hn::IfThenElse(is_max, best_id, none)));
  return hn::GetLane(max) > kNegInf ? id : 0;
}

// Appends x[i] >= threshold (and their indices, if `ids` is not null) to the outputs, which may be
// the inputs. Returns how many. Outputs need kLanes of slack.
int CompressAtLeast(const float* x, int padded, float threshold, float* values, int32_t* ids) {
  const DF df;
  const DI di;
  const VF t = hn::Set(df, threshold);
  int count = 0;
  for (int i = 0; i < padded; i += kLanes) {
    const VF v = hn::LoadU(df, x + i);
    const auto keep = hn::Ge(v, t);
    const int kept = static_cast<int>(hn::CountTrue(df, keep));
    if (kept == 0) continue;
    // Not CompressStore: to memory it is microcoded on Zen 4.
    hn::StoreU(hn::Compress(v, keep), df, values + count);
    if (ids != nullptr) {
      hn::StoreU(hn::Compress(hn::Iota(di, i), hn::RebindMask(di, keep)), di, ids + count);
    }
    count += kept;
  }
  return count;
}

// Candidates of a threshold search.
struct Candidates {
  float* values;
  int count;
};

// Fills up to whole vectors with values that no pivot is below.
void PadCandidates(const Candidates& c) {
  for (int i = c.count; i % kLanes != 0; ++i) c.values[i] = kNegInf;
}

struct Range {
  float min;
  float max;
};

Range RangeOf(const Candidates& c) {
  const DF df;
  VF min = hn::Set(df, -kNegInf);
  VF max = hn::Set(df, kNegInf);
  for (int i = 0; i < c.count; i += kLanes) {
    const VF v = hn::LoadU(df, c.values + i);
    max = hn::Max(max, v);
    min = hn::Min(min, hn::IfThenElse(hn::Eq(v, hn::Set(df, kNegInf)), min, v));
  }
  return {hn::GetLane(hn::MinOfLanes(df, min)), hn::GetLane(hn::MaxOfLanes(df, max))};
}

struct Split {
  int above;       // number of values greater than the pivot
  float smallest;  // of those values
  float largest;   // of the others
};

Split SplitAt(const Candidates& c, float pivot) {
  const DF df;
  const VF p = hn::Set(df, pivot);
  const VF infinity = hn::Set(df, -kNegInf);
  size_t count = 0;
  VF smallest = infinity;
  VF largest = hn::Neg(infinity);
  for (int i = 0; i < c.count; i += kLanes) {
    const VF v = hn::LoadU(df, c.values + i);
    const auto above = hn::Gt(v, p);
    count += hn::CountTrue(df, above);
    smallest = hn::Min(smallest, hn::IfThenElse(above, v, infinity));
    largest = hn::Max(largest, hn::IfThenElse(above, hn::Neg(infinity), v));
  }
  return {static_cast<int>(count), hn::GetLane(hn::MinOfLanes(df, smallest)),
          hn::GetLane(hn::MaxOfLanes(df, largest))};
}

// Keeps the candidates on one side of the pivot.
void KeepSide(Candidates* c, float pivot, bool keep_above) {
  const DF df;
  const VF p = hn::Set(df, pivot);
  int count = 0;
  for (int i = 0; i < c->count; i += kLanes) {
    const VF v = hn::LoadU(df, c->values + i);
    const auto above = hn::Gt(v, p);
    const auto real = hn::Gt(v, hn::Set(df, kNegInf));
    const auto keep = keep_above ? above : hn::AndNot(above, real);
    hn::StoreU(hn::Compress(v, keep), df, c->values + count);
    count += static_cast<int>(hn::CountTrue(df, keep));
  }
  c->count = count;
  PadCandidates(*c);
}

// The smallest of the candidates' values that has fewer than `target` candidates above it. Instead
// of a sort: split at the middle of the range and go on with the side that has the answer. At least
// one candidate; destroys them.
float SmallestKept(Candidates c, int target) {
  PadCandidates(c);
  Range range = RangeOf(c);
  int above = 0;  // candidates dropped from above those that are left
  float kept = std::numeric_limits<float>::infinity();
  while (range.min < range.max) {
    float pivot = range.min + (range.max - range.min) * 0.5f;
    if (!(pivot < range.max)) pivot = range.min;
    const Split split = SplitAt(c, pivot);
    const bool go_above = above + split.above >= target;  // all others have too many above them
    if (go_above) {
      range.min = split.smallest;
    } else {
      // Everything above the pivot is kept: the answer is there or below.
      kept = split.smallest;
      above += split.above;
      range.max = split.largest;
    }
    KeepSide(&c, pivot, go_above);
  }
  return above < target ? range.min : kept;
}

// x >= the result is what min_p and top_k keep, in this order.
float Threshold(const float* x, int padded, float max, const SamplingScalars& s, int vocab,
                float* scratch) {
  float threshold = std::numeric_limits<float>::lowest();
  if (s.min_p > 0) threshold = std::max(threshold, max + std::log(std::min(s.min_p, 1.0f)));
  if (s.top_k <= 0 || s.top_k >= vocab) return threshold;
  const int count = CompressAtLeast(x, padded, threshold, scratch, nullptr);
  if (count <= s.top_k) return threshold;
  return SmallestKept({scratch, count}, s.top_k);
}

// The 32 random bits of the token ids times 0x9E3779B9; see NoiseBits.
HWY_INLINE VU NoiseBitsOf(VU multiplied_ids, uint64_t key) {
  const DU du;
  const VU m1 = hn::Set(du, 0x7FEB352Du);
  const VU m2 = hn::Set(du, 0x846CA68Bu);
  VU h = hn::Xor(multiplied_ids, hn::Set(du, static_cast<uint32_t>(key)));
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<16>(h)), m1);
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<15>(h)), m2);
  h = hn::Xor(h, hn::Xor(hn::ShiftRight<16>(h), hn::Set(du, static_cast<uint32_t>(key >> 32))));
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<16>(h)), m1);
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<15>(h)), m2);
  return hn::Xor(h, hn::ShiftRight<16>(h));
}

// log(E), E ~ Exp(1); see ExponentialNoise.
HWY_INLINE VF LogNoise(VU bits) {
  const DF df;
  const DU du;
  const DI di;
  // Unsigned to float from two exact halves: one rounding, as in a scalar conversion.
  const VF top = hn::ConvertTo(df, hn::BitCast(di, hn::ShiftRight<16>(bits)));
  const VF bottom = hn::ConvertTo(df, hn::BitCast(di, hn::And(bits, hn::Set(du, 0xFFFFu))));
  const VF value = hn::Add(hn::Mul(top, hn::Set(df, 65536.0f)), bottom);
  const VF u = hn::Mul(hn::Add(value, hn::Set(df, 0.5f)), hn::Set(df, 2.3283064365386963e-10f));
  const VF clamped = hn::Min(u, hn::Set(df, 0.99999994f));
  return hn::Log(df, hn::Neg(hn::Log1p(df, hn::Neg(clamped))));
}

// Lanes whose x - LogNoise(bits) may reach `best`, at a tenth of its cost: E = -log(1 - u) >= u, u
// not less than its upper 24 bits, a float 2^e (1 + m), and log2(1 + m) >= m, where e + m is that
// float's own bits read as an integer. `limit` is BoundLimit(best).
HWY_INLINE hn::Mask<DF> MayReach(VF x, VU bits, VF limit) {
  const DF df;
  const DI di;
  const VF u = hn::ConvertTo(df, hn::BitCast(di, hn::ShiftRight<8>(bits)));
  const VF log_u = hn::ConvertTo(df, hn::BitCast(di, u));
  return hn::Ge(hn::NegMulAdd(log_u, hn::Set(df, 8.2629582e-8f), x), limit);
}

// 151: the exponent's bias and the 24 bits. The rest is for the rounding of both sides.
float BoundLimit(float best) {
  return best - 104.66522f - 2e-3f - 1e-6f * (best < 0 ? -best : best);
}

struct Draw {
  int at = -1;  // index in the row; -1: no token
  float value = kNegInf;
};

// The arg max of x - log(E) over the tokens with x > above, ties to the lowest index; `ids` null:
// tokens are their indices. Rounding is monotone, so a token whose bound is below the best so far
// cannot win: logarithms are computed for a few vectors of a row only.
Draw DrawAbove(const float* x, const int32_t* ids, int padded, float above, uint64_t key) {
  const DF df;
  const DI di;
  const DU du;
  const VU multiplier = hn::Set(du, 0x9E3779B9u);
  const VU step = hn::Set(du, 0x9E3779B9u * kLanes);
  VU next = hn::Mul(hn::Iota(du, 0), multiplier);
  VF limit = hn::Set(df, kNegInf);
  float best = kNegInf;
  Draw draw;
  for (int i = 0; i < padded; i += kLanes) {
    VU id = next;
    next = hn::Add(next, step);
    if (ids != nullptr) id = hn::Mul(hn::BitCast(du, hn::LoadU(di, ids + i)), multiplier);
    const VU bits = NoiseBitsOf(id, key);
    const VF v = hn::LoadU(df, x + i);
    if (hn::AllFalse(df, MayReach(v, bits, limit))) continue;
    const auto open = hn::Gt(v, hn::Set(df, above));
    const VF score = hn::IfThenElse(open, hn::Sub(v, LogNoise(bits)), hn::Set(df, kNegInf));
    const VF max = hn::MaxOfLanes(df, score);
    if (!(hn::GetLane(max) > best)) continue;
    best = hn::GetLane(max);
    limit = hn::Set(df, BoundLimit(best));
    draw.at = i + static_cast<int>(hn::FindFirstTrue(df, hn::Eq(score, max)));
    draw.value = x[draw.at];
  }
  return draw;
}

// exp(x - shift) to `weights`; returns their sum.
float Weigh(const float* x, int padded, float shift, float* weights) {
  const DF df;
  const VF s = hn::Set(df, shift);
  VF sum = hn::Zero(df);
  for (int i = 0; i < padded; i += kLanes) {
    const VF weight = ExpOfNonPositive(hn::Sub(hn::LoadU(df, x + i), s));
    hn::StoreU(weight, df, weights + i);
    sum = hn::Add(sum, weight);
  }
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

float WeightAbove(const float* x, const float* weights, int padded, float value) {
  const DF df;
  const VF v = hn::Set(df, value);
  VF sum = hn::Zero(df);
  for (int i = 0; i < padded; i += kLanes) {
    const auto above = hn::Gt(hn::LoadU(df, x + i), v);
    sum = hn::Add(sum, hn::IfThenElseZero(above, hn::LoadU(df, weights + i)));
  }
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

// A draw among what top_p keeps of the row: a token is kept if those above it weigh less than top_p
// of all. Instead of finding the least of them first, draws from all and asks whether the winner is
// kept, which it is in the part top_p of all cases; if not, nothing at or below it is.
Draw DrawTopP(const float* x, const int32_t* ids, int padded, float max, float top_p, uint64_t key,
              float* weights) {
  const float target = top_p * Weigh(x, padded, max, weights);
  float above = kNegInf;
  while (true) {
    const Draw draw = DrawAbove(x, ids, padded, above, key);
    // The most probable is always kept.
    if (draw.at < 0 || draw.value >= max) return draw;
    if (WeightAbove(x, weights, padded, draw.value) < target) return draw;
    above = draw.value;
  }
}

// x / temperature to `row`; returns the greatest.
float Temper(const float* x, int padded, float temperature, float* row) {
  const DF df;
  const VF t = hn::Set(df, temperature);
  VF best = hn::Set(df, kNegInf);
  for (int i = 0; i < padded; i += kLanes) {
    const VF v = hn::Div(hn::LoadU(df, x + i), t);
    best = hn::Max(best, v);
    hn::StoreU(v, df, row + i);
  }
  return hn::GetLane(hn::MaxOfLanes(df, best));
}

// `x` is what the lists have left of the logits; may be the scratch row.
int32_t SampleRow(const float* x, const SampleParams& p) {
  int padded = static_cast<int>(RoundUp(p.vocab, kLogitsPadding));
  if (p.scalars.temperature <= 0) return ArgMax(x, padded);
  SamplerScratch* s = p.scratch;
  const float* row = s->row.data();
  const float max = Temper(x, padded, p.scalars.temperature, s->row.data());
  if (!(max > kNegInf)) return 0;
  // A temperature so small that the greatest overflows leaves that one alone.
  if (max == std::numeric_limits<float>::infinity()) return ArgMax(x, padded);
  const int32_t* ids = nullptr;
  const float threshold = Threshold(row, padded, max, p.scalars, p.vocab, s->values.data());
  if (threshold > std::numeric_limits<float>::lowest()) {
    const int count = CompressAtLeast(row, padded, threshold, s->values.data(), s->ids.data());
    PadCandidates({s->values.data(), count});
    row = s->values.data();
    ids = s->ids.data();
    padded = static_cast<int>(RoundUp(count, kLanes));
  }
  const uint64_t key = PositionKey(p.scalars.seed, p.position);
  const Draw draw = p.scalars.top_p < 1
                        ? DrawTopP(row, ids, padded, max, p.scalars.top_p, key, s->weights.data())
                        : DrawAbove(row, ids, padded, kNegInf, key);
  if (draw.at < 0) return 0;
  return ids != nullptr ? ids[draw.at] : draw.at;
}

int GatherAtLeastNth(const float* x, int padded, int n, SamplerScratch* s) {
  float* values = s->values.data();
  const float lowest = std::numeric_limits<float>::lowest();
  const int count = CompressAtLeast(x, padded, lowest, values, nullptr);
  const float threshold = count > n ? SmallestKept({values, count}, n) : kNegInf;
  return CompressAtLeast(x, padded, threshold, values, s->ids.data());
}

}  // namespace HWY_NAMESPACE
}  // namespace hgrn2::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hgrn2::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int Padded(int vocab) { return static_cast<int>(RoundUp(vocab, kLogitsPadding)); }

bool HasLists(const SampleParams& p) {
  return !p.allowed.empty() || !p.banned[0].empty() || !p.banned[1].empty() ||
         !p.banned[2].empty() || !p.biases.empty() || !p.penalized.empty();
}

void ApplyPenalties(const SampleParams& p, float* row) {
  const SamplingScalars& s = p.scalars;
  for (const PenalizedToken& t : p.penalized) {
    float& x = row[t.token_id];
    x = x > 0 ? x / s.repetition_penalty : x * s.repetition_penalty;
    x -= s.frequency_penalty * static_cast<float>(t.generated);
    if (t.generated > 0) x -= s.presence_penalty;
  }
}

// Steps 1 and 2 of kernels/sampling.h, to `row`.
void ApplyLists(const SampleParams& p, float* row) {
  const size_t padded = static_cast<size_t>(Padded(p.vocab));
  if (p.allowed.empty()) {
    std::memcpy(row, p.logits, padded * sizeof(float));
  } else {
    std::fill(row, row + padded, kMinusInfinity);
    for (const int32_t id : p.allowed) row[id] = p.logits[id];
  }
  for (const auto& banned : p.banned) {
    for (const int32_t id : banned) row[id] = kMinusInfinity;
  }
  for (const TokenBias& b : p.biases) row[b.token_id] += b.bias;
  ApplyPenalties(p, row);
}

}  // namespace

HWY_EXPORT(SampleRow);
HWY_EXPORT(LogSumExpImpl);
HWY_EXPORT(CountGreaterImpl);
HWY_EXPORT(GatherAtLeastNth);

// 64 of slack: compressing writes whole vectors.
SamplerScratch::SamplerScratch(int vocab)
    : row(static_cast<size_t>(Padded(vocab) + 64)),
      values(static_cast<size_t>(Padded(vocab) + 64)),
      weights(static_cast<size_t>(Padded(vocab) + 64)),
      ids(static_cast<size_t>(Padded(vocab) + 64)) {}

void PadLogits(float* logits, int vocab, int padded) {
  std::fill(logits + vocab, logits + padded, kMinusInfinity);
}

int32_t SampleToken(const SampleParams& params) {
  const float* x = params.logits;
  if (HasLists(params)) {
    ApplyLists(params, params.scratch->row.data());
    x = params.scratch->row.data();
  }
  return HWY_DYNAMIC_DISPATCH(SampleRow)(x, params);
}

float LogSumExp(const float* logits, int vocab) {
  return HWY_DYNAMIC_DISPATCH(LogSumExpImpl)(logits, Padded(vocab));
}

int32_t CountGreater(const float* logits, int vocab, float value) {
  return HWY_DYNAMIC_DISPATCH(CountGreaterImpl)(logits, Padded(vocab), value);
}

int TopIds(const float* logits, int vocab, int n, SamplerScratch* scratch, int32_t* ids) {
  const int count = HWY_DYNAMIC_DISPATCH(GatherAtLeastNth)(logits, Padded(vocab), n, scratch);
  int32_t* const found = scratch->ids.data();
  // Logits of -inf keep their padding out of the ids: an id is below vocab or it is not a token.
  int32_t* const end =
      std::remove_if(found, found + count, [&](int32_t id) { return id >= vocab; });
  std::sort(found, end, [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  const int top = static_cast<int>(std::min<int64_t>(n, end - found));
  std::copy_n(found, top, ids);
  return top;
}

}  // namespace hgrn2::cpu
#endif  // HWY_ONCE
