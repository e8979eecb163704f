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
// exp(-80) of the greatest probability is nothing to a sum in float.
constexpr float kNegligible = 80.0f;

float MaxOf(const float* x, int padded) {
  const DF df;
  VF best = hn::Set(df, kNegInf);
  for (int i = 0; i < padded; i += kLanes) best = hn::Max(best, hn::LoadU(df, x + i));
  return hn::GetLane(hn::MaxOfLanes(df, best));
}

// Sum of exp(x - shift); the terms too, if `terms` is not null.
float SumExp(const float* x, int padded, float shift, float* terms) {
  const DF df;
  const VF s = hn::Set(df, shift);
  VF sum0 = hn::Zero(df);
  VF sum1 = hn::Zero(df);
  for (int i = 0; i < padded; i += kLanes) {
    const VF e = hn::Exp(df, hn::Sub(hn::LoadU(df, x + i), s));
    if (terms != nullptr) hn::StoreU(e, df, terms + i);
    // Two sums in turn: half the chain, half the rounding.
    const VF next = hn::Add(sum0, e);
    sum0 = sum1;
    sum1 = next;
  }
  return hn::GetLane(hn::SumOfLanes(df, hn::Add(sum0, sum1)));
}

float LogSumExpImpl(const float* x, int padded) {
  const float max = MaxOf(x, padded);
  if (!(max > kNegInf)) return max;
  return max + std::log(SumExp(x, padded, max, nullptr));
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

// Appends x[i] >= threshold (and its weight or its index, where asked for) to the outputs, which
// may be the inputs. Returns how many. Outputs need kLanes of slack.
int CompressAtLeast(const float* x, const float* weights, int padded, float threshold,
                    float* values, float* values_weights, int32_t* ids) {
  const DF df;
  const DI di;
  const VF t = hn::Set(df, threshold);
  int count = 0;
  for (int i = 0; i < padded; i += kLanes) {
    const VF v = hn::LoadU(df, x + i);
    const auto keep = hn::Ge(v, t);
    const int kept = static_cast<int>(hn::CountTrue(df, keep));
    if (kept == 0) continue;
    if (weights != nullptr) {
      hn::StoreU(hn::Compress(hn::LoadU(df, weights + i), keep), df, values_weights + count);
    }
    // Not CompressStore: to memory it is microcoded on Zen 4.
    hn::StoreU(hn::Compress(v, keep), df, values + count);
    if (ids != nullptr) {
      hn::StoreU(hn::Compress(hn::Iota(di, i), hn::RebindMask(di, keep)), di, ids + count);
    }
    count += kept;
  }
  return count;
}

// Candidates of a threshold search; weights null: each weighs 1.
struct Candidates {
  float* values;
  float* weights;
  int count;
};

// Fills up to whole vectors with values that no pivot is below.
void PadCandidates(const Candidates& c) {
  for (int i = c.count; i % kLanes != 0; ++i) {
    c.values[i] = kNegInf;
    if (c.weights != nullptr) c.weights[i] = 0;
  }
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
  float weight;    // of the values greater than the pivot
  float smallest;  // of those values
  float largest;   // of the others
};

Split SplitAt(const Candidates& c, float pivot) {
  const DF df;
  const VF p = hn::Set(df, pivot);
  const VF infinity = hn::Set(df, -kNegInf);
  VF sum = hn::Zero(df);
  VF smallest = infinity;
  VF largest = hn::Neg(infinity);
  for (int i = 0; i < c.count; i += kLanes) {
    const VF v = hn::LoadU(df, c.values + i);
    const VF w = c.weights != nullptr ? hn::LoadU(df, c.weights + i) : hn::Set(df, 1.0f);
    const auto above = hn::Gt(v, p);
    sum = hn::Add(sum, hn::IfThenElseZero(above, w));
    smallest = hn::Min(smallest, hn::IfThenElse(above, v, infinity));
    largest = hn::Max(largest, hn::IfThenElse(above, hn::Neg(infinity), v));
  }
  return {hn::GetLane(hn::SumOfLanes(df, sum)), hn::GetLane(hn::MinOfLanes(df, smallest)),
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
    if (c->weights != nullptr) {
      const VF w = hn::LoadU(df, c->weights + i);
      hn::StoreU(hn::Compress(w, keep), df, c->weights + count);
    }
    hn::StoreU(hn::Compress(v, keep), df, c->values + count);
    count += static_cast<int>(hn::CountTrue(df, keep));
  }
  c->count = count;
  PadCandidates(*c);
}

// The smallest of the candidates' values such that the weight strictly above it is less than
// `target`. Instead of a sort: split at the middle of the range and go on with the side that has
// the answer. At least one candidate; destroys them.
float SmallestKept(Candidates c, float target) {
  PadCandidates(c);
  Range range = RangeOf(c);
  float above = 0;  // weight above all candidates that are left
  float kept = std::numeric_limits<float>::infinity();
  while (range.min < range.max) {
    float pivot = range.min + (range.max - range.min) * 0.5f;
    if (!(pivot < range.max)) pivot = range.min;
    const Split split = SplitAt(c, pivot);
    const bool go_above = above + split.weight >= target;  // all others have too much above them
    if (go_above) {
      range.min = split.smallest;
    } else {
      // Everything above the pivot is kept: the answer is there or below.
      kept = split.smallest;
      above += split.weight;
      range.max = split.largest;
    }
    KeepSide(&c, pivot, go_above);
  }
  return above < target ? range.min : kept;
}

// The top_p threshold of the tokens x >= threshold; see Threshold.
float TopPThreshold(const float* x, int padded, float max, float threshold, float top_p, int vocab,
                    SamplerScratch* scratch) {
  float* values = scratch->values.data();
  float* weights = scratch->weights.data();
  if (threshold > std::numeric_limits<float>::lowest()) {
    const Candidates c{values, weights,
                       CompressAtLeast(x, nullptr, padded, threshold, values, nullptr, nullptr)};
    PadCandidates(c);
    x = values;
    padded = static_cast<int>(RoundUp(c.count, kLanes));
  }
  const float sum = SumExp(x, padded, max, weights);
  // All tokens below max - log(vocab / (1 - top_p)) together weigh less than (1 - top_p) of the
  // greatest alone, so none of them is kept: most of a row need not be searched.
  const float range = top_p < 1 ? std::log(static_cast<float>(vocab) / (1 - top_p)) : kNegligible;
  const float floor = max - std::min(kNegligible, range + 1);
  const int count = CompressAtLeast(x, weights, padded, floor, values, weights, nullptr);
  return std::min(SmallestKept({values, weights, count}, top_p * sum), max);
}

// x >= the result is what min_p, top_k and top_p keep, in this order.
float Threshold(const float* x, int padded, float max, const SamplingScalars& s, int vocab,
                SamplerScratch* scratch) {
  float threshold = std::numeric_limits<float>::lowest();
  if (s.min_p > 0) threshold = std::max(threshold, max + std::log(std::min(s.min_p, 1.0f)));
  float* values = scratch->values.data();
  if (s.top_k > 0 && s.top_k < vocab) {
    const int count = CompressAtLeast(x, nullptr, padded, threshold, values, nullptr, nullptr);
    if (count > s.top_k) {
      threshold = SmallestKept({values, nullptr, count}, static_cast<float>(s.top_k));
    }
  }
  // Something is always kept: the most probable.
  if (s.top_p < 1) {
    threshold =
        std::max(threshold, TopPThreshold(x, padded, max, threshold, s.top_p, vocab, scratch));
  }
  return threshold;
}

// E ~ Exp(1) of each token id; see ExponentialNoise.
HWY_INLINE VF NoiseOf(VU ids, uint64_t key) {
  const DU du;
  const DF df;
  const VU low = hn::Set(du, static_cast<uint32_t>(key));
  const VU high = hn::Set(du, static_cast<uint32_t>(key >> 32));
  const VU m1 = hn::Set(du, 0x7FEB352Du);
  const VU m2 = hn::Set(du, 0x846CA68Bu);
  VU h = hn::Xor(hn::Mul(ids, hn::Set(du, 0x9E3779B9u)), low);
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<16>(h)), m1);
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<15>(h)), m2);
  h = hn::Xor(h, hn::Xor(hn::ShiftRight<16>(h), high));
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<16>(h)), m1);
  h = hn::Mul(hn::Xor(h, hn::ShiftRight<15>(h)), m2);
  h = hn::Xor(h, hn::ShiftRight<16>(h));
  // Unsigned to float from two exact halves: one rounding, as in a scalar conversion.
  const DI di;
  const VF top = hn::ConvertTo(df, hn::BitCast(di, hn::ShiftRight<16>(h)));
  const VF bottom = hn::ConvertTo(df, hn::BitCast(di, hn::And(h, hn::Set(du, 0xFFFFu))));
  const VF bits = hn::Add(hn::Mul(top, hn::Set(df, 65536.0f)), bottom);
  const VF u = hn::Mul(hn::Add(bits, hn::Set(df, 0.5f)), hn::Set(df, 2.3283064365386963e-10f));
  const VF clamped = hn::Min(u, hn::Set(df, 0.99999994f));
  return hn::Neg(hn::Log1p(df, hn::Neg(clamped)));
}

// Overwrites values (count, then -inf to whole vectors) with x - log(E).
void AddNoise(float* values, const int32_t* ids, int count, uint64_t key) {
  const DF df;
  const DU du;
  for (int i = 0; i < count; i += kLanes) {
    const VU id = hn::BitCast(du, hn::LoadU(DI(), ids + i));
    const VF noise = hn::Log(df, NoiseOf(id, key));
    hn::StoreU(hn::Sub(hn::LoadU(df, values + i), noise), df, values + i);
  }
}

// `x` is what the lists have left of the logits; may be the scratch row.
int32_t SampleRow(const float* x, const SampleParams& p) {
  const DF df;
  const int padded = static_cast<int>(RoundUp(p.vocab, kLogitsPadding));
  if (p.scalars.temperature <= 0) return ArgMax(x, padded);
  SamplerScratch* s = p.scratch;
  float* row = s->row.data();
  const VF temperature = hn::Set(df, p.scalars.temperature);
  for (int i = 0; i < padded; i += kLanes) {
    hn::StoreU(hn::Div(hn::LoadU(df, x + i), temperature), df, row + i);
  }
  const float max = MaxOf(row, padded);
  if (!(max > kNegInf)) return 0;
  // A temperature so small that the greatest overflows leaves that one alone.
  if (max == std::numeric_limits<float>::infinity()) return ArgMax(x, padded);
  const float threshold = Threshold(row, padded, max, p.scalars, p.vocab, s);
  float* values = s->values.data();
  int32_t* ids = s->ids.data();
  const int count = CompressAtLeast(row, nullptr, padded, threshold, values, nullptr, ids);
  for (int i = count; i % kLanes != 0; ++i) {
    values[i] = kNegInf;
    ids[i] = 0;
  }
  AddNoise(values, ids, count, PositionKey(p.scalars.seed, p.position));
  return count == 0 ? 0 : ids[ArgMax(values, static_cast<int>(RoundUp(count, kLanes)))];
}

int GatherAtLeastNth(const float* x, int padded, int n, SamplerScratch* s) {
  float* values = s->values.data();
  const float lowest = std::numeric_limits<float>::lowest();
  const int count = CompressAtLeast(x, nullptr, padded, lowest, values, nullptr, nullptr);
  float threshold = kNegInf;
  if (count > n) threshold = SmallestKept({values, nullptr, count}, static_cast<float>(n));
  return CompressAtLeast(x, nullptr, padded, threshold, values, nullptr, s->ids.data());
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
