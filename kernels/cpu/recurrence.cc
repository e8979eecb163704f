#include "kernels/cpu/recurrence.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu/packed_matrix.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/recurrence.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace hgrn2::cpu {
namespace HWY_NAMESPACE {

// Row `t` of the scratch from raw projections: q = K^-1/2 swish(q), g = lb + (1 - lb) sigmoid(f)
// and k = 1 - g. The last is taken as (1 - lb) sigmoid(-f), which keeps its digits when g is near
// one.
void Activate(const RecurrenceParams& p, int token, int t) {
  const DF df;
  RecurrenceScratch& s = *p.scratch;
  const float* q = p.q + token * p.ld;
  const float* f = p.f + token * p.ld;
  const float* i = p.i + token * p.ld + p.column_begin;
  const VF one = hn::Set(df, 1.0f);
  const VF scale = hn::Set(df, 1.0f / std::sqrt(static_cast<float>(p.head_dim)));
  for (int c = 0; c < p.head_dim; c += kLanes) {
    const Sigmoids gate = SigmoidPair(hn::LoadU(df, f + c));
    const VF lb = hn::LoadU(df, p.lower_bound + c);
    const VF span = hn::Sub(one, lb);
    hn::Store(hn::Mul(Swish(hn::LoadU(df, q + c)), scale), df, s.q.data() + t * s.ld + c);
    hn::Store(hn::MulAdd(span, gate.of_x, lb), df, s.g.data() + t * s.ld + c);
    hn::Store(hn::Mul(span, gate.of_minus_x), df, s.k.data() + t * s.ld + c);
  }
  const int valid = HWY_MIN(p.columns, p.head_dim - p.column_begin);
  std::memcpy(s.i.data() + t * s.ld, i, static_cast<size_t>(valid) * sizeof(float));
  // Columns of padding stay zero in the state.
  for (int c = valid; c < p.columns; ++c) s.i[t * s.ld + c] = 0;
}

void StoreOutput(const RecurrenceParams& p, int token, int t) {
  const int valid = HWY_MIN(p.columns, p.head_dim - p.column_begin);
  std::memcpy(p.o + token * p.ldo + p.column_begin, p.scratch->o.data() + t * p.scratch->ld,
              static_cast<size_t>(valid) * sizeof(float));
}

// N vectors of columns, all rows of S, one token.
template <class Memory, int N>
HWY_INLINE void StepColumns(const RecurrenceParams& p, int column) {
  const DF df;
  const RecurrenceScratch& s = *p.scratch;
  VF in[N], out[N];
  for (int n = 0; n < N; ++n) {
    in[n] = hn::Load(df, s.i.data() + column + n * kLanes);
    out[n] = hn::Zero(df);
  }
  int64_t at = p.column_begin + column;
  for (int k = 0; k < p.head_dim; ++k, at += p.state_ld) {
    const VF g = hn::Set(df, s.g[k]);
    const VF key = hn::Set(df, s.k[k]);
    const VF q = hn::Set(df, s.q[k]);
    for (int n = 0; n < N; ++n) {
      const VF old = Memory::Load(p.state, at + n * kLanes);
      const VF state = hn::MulAdd(g, old, hn::Mul(key, in[n]));
      Memory::Store(state, p.state, at + n * kLanes);
      out[n] = hn::MulAdd(q, state, out[n]);
    }
  }
  for (int n = 0; n < N; ++n) hn::Store(out[n], df, p.scratch->o.data() + column + n * kLanes);
}

template <class Memory>
void Step(const RecurrenceParams& p) {
  constexpr int kWide = kManyRegisters ? 8 : 4;
  Activate(p, 0, 0);
  int column = 0;
  for (; column + kWide * kLanes <= p.columns; column += kWide * kLanes) {
    StepColumns<Memory, kWide>(p, column);
  }
  for (; column < p.columns; column += kLanes) StepColumns<Memory, 1>(p, column);
  StoreOutput(p, 0, 0);
}

void ClearState(const RecurrenceParams& p) {
  const size_t size = SizeOf(p.state_dtype);
  for (int k = 0; k < p.head_dim; ++k) {
    std::memset(static_cast<uint8_t*>(p.state) + (k * p.state_ld + p.column_begin) * size, 0,
                p.columns * size);
  }
}

void RecurrentStepImpl(const RecurrenceParams& p) {
  if (p.zero_state) ClearState(p);
  switch (p.state_dtype) {
    case DType::kF16:
      return Step<F16Memory>(p);
    case DType::kBF16:
      return Step<Bf16Memory>(p);
    default:
      return Step<F32Memory>(p);
  }
}

// Inside a chunk of n tokens: scores[t][s] = (q_t . k_s decayed from s to t) for s <= t, zero
// above; leaves q_t times the gates up to t, k_s times the gates after s, and the product of all
// gates.
void ScoreChunk(const RecurrenceParams& p, int n) {
  const DF df;
  RecurrenceScratch& s = *p.scratch;
  const int dim = p.head_dim;
  for (int t = 0; t < n; ++t) {
    for (int u = 0; u < kChunkTokens; ++u) s.scores[t][u] = 0;
    for (int u = 0; u < t; ++u) {
      VF sum = hn::Zero(df);
      for (int c = 0; c < dim; c += kLanes) {
        const VF key = hn::Mul(hn::Load(df, s.k.data() + u * s.ld + c),
                               hn::Load(df, s.g.data() + t * s.ld + c));
        hn::Store(key, df, s.k.data() + u * s.ld + c);
        sum = hn::MulAdd(key, hn::Load(df, s.q.data() + t * s.ld + c), sum);
      }
      s.scores[t][u] = hn::GetLane(hn::SumOfLanes(df, sum));
    }
    VF sum = hn::Zero(df);
    for (int c = 0; c < dim; c += kLanes) {
      const VF q = hn::Load(df, s.q.data() + t * s.ld + c);
      const VF g = hn::Load(df, s.g.data() + t * s.ld + c);
      sum = hn::MulAdd(q, hn::Load(df, s.k.data() + t * s.ld + c), sum);
      const VF decay = t == 0 ? g : hn::Mul(hn::Load(df, s.decay.data() + c), g);
      hn::Store(decay, df, s.decay.data() + c);
      hn::Store(hn::Mul(q, decay), df, s.q.data() + t * s.ld + c);
    }
    s.scores[t][t] = hn::GetLane(hn::SumOfLanes(df, sum));
  }
}

// Lanes from head_dim to the next vector hold other channels' values: they must not reach the sums.
void ClearTail(RecurrenceScratch& s, int dim, int t) {
  for (int c = dim; c % kStateColumnPadding != 0; ++c) {
    s.q[t * s.ld + c] = s.k[t * s.ld + c] = s.g[t * s.ld + c] = 0;
  }
}

// One vector of columns for T tokens: o_t = (q_t decayed)^T S + sum_s scores[t][s] i_s.
template <int T>
HWY_INLINE void ChunkOutput(const RecurrenceParams& p, const float* state, int64_t ld, int column,
                            int first) {
  const DF df;
  RecurrenceScratch& s = *p.scratch;
  VF out[T];
  for (int t = 0; t < T; ++t) out[t] = hn::Zero(df);
  for (int k = 0; k < p.head_dim; ++k) {
    const VF row = hn::LoadU(df, state + k * ld + column);
    for (int t = 0; t < T; ++t)
      out[t] = hn::MulAdd(hn::Set(df, s.q[(first + t) * s.ld + k]), row, out[t]);
  }
  for (int u = 0; u < first + T; ++u) {
    const VF in = hn::Load(df, s.i.data() + u * s.ld + column);
    for (int t = 0; t < T; ++t) {
      out[t] = hn::MulAdd(hn::Set(df, s.scores[first + t][u]), in, out[t]);
    }
  }
  for (int t = 0; t < T; ++t) hn::Store(out[t], df, s.o.data() + (first + t) * s.ld + column);
}

// One vector of columns, R rows of S: S = diag(decay) S + sum_s k_s (x) i_s.
template <int R>
HWY_INLINE void ChunkUpdate(const RecurrenceParams& p, float* state, int64_t ld, int column, int k,
                            int n) {
  const DF df;
  const RecurrenceScratch& s = *p.scratch;
  VF rows[R];
  for (int r = 0; r < R; ++r) {
    rows[r] = hn::Mul(hn::Set(df, s.decay[k + r]), hn::LoadU(df, state + (k + r) * ld + column));
  }
  for (int u = 0; u < n; ++u) {
    const VF in = hn::Load(df, s.i.data() + u * s.ld + column);
    for (int r = 0; r < R; ++r)
      rows[r] = hn::MulAdd(hn::Set(df, s.k[u * s.ld + k + r]), in, rows[r]);
  }
  for (int r = 0; r < R; ++r) hn::StoreU(rows[r], df, state + (k + r) * ld + column);
}

// Tokens [token, token + n), n <= kChunkTokens, on a float32 state.
void Chunk(const RecurrenceParams& p, float* state, int64_t ld, int token, int n) {
  RecurrenceScratch& s = *p.scratch;
  for (int t = 0; t < n; ++t) {
    Activate(p, token + t, t);
    ClearTail(s, p.head_dim, t);
  }
  ScoreChunk(p, n);
  // Rows beyond n are computed and dropped; they must be finite.
  for (int t = n; t < kChunkTokens; ++t) {
    std::memset(s.q.data() + t * s.ld, 0, static_cast<size_t>(s.ld) * sizeof(float));
    std::memset(s.scores[t], 0, sizeof(s.scores[t]));
    std::memset(s.i.data() + t * s.ld, 0, static_cast<size_t>(s.ld) * sizeof(float));
  }
  constexpr int kTokens = kManyRegisters ? 16 : 8;
  constexpr int kRows = 8;
  for (int column = 0; column < p.columns; column += kLanes) {
    for (int t = 0; t < n; t += kTokens) ChunkOutput<kTokens>(p, state, ld, column, t);
    int k = 0;
    for (; k + kRows <= p.head_dim; k += kRows) ChunkUpdate<kRows>(p, state, ld, column, k, n);
    for (; k < p.head_dim; ++k) ChunkUpdate<1>(p, state, ld, column, k, n);
  }
  for (int t = 0; t < n; ++t) StoreOutput(p, token + t, t);
}

template <class Memory>
void LoadState(const RecurrenceParams& p, float* to) {
  for (int k = 0; k < p.head_dim; ++k) {
    for (int c = 0; c < p.columns; c += kLanes) {
      F32Memory::Store(Memory::Load(p.state, k * p.state_ld + p.column_begin + c), to,
                       k * p.columns + c);
    }
  }
}

template <class Memory>
void StoreState(const RecurrenceParams& p, const float* from) {
  for (int k = 0; k < p.head_dim; ++k) {
    for (int c = 0; c < p.columns; c += kLanes) {
      Memory::Store(F32Memory::Load(from, k * p.columns + c), p.state,
                    k * p.state_ld + p.column_begin + c);
    }
  }
}

void Chunks(const RecurrenceParams& p, float* state, int64_t ld) {
  for (int token = 0; token < p.tokens; token += kChunkTokens) {
    Chunk(p, state, ld, token, HWY_MIN(kChunkTokens, p.tokens - token));
  }
}

// Up to kSplitTokens tokens.
void SplitImpl(const RecurrenceParams& p) {
  if (p.tokens == 1) return RecurrentStepImpl(p);  // as if it had come in a step of its own
  if (p.zero_state) ClearState(p);
  float* const copy = p.scratch->state.data();
  switch (p.state_dtype) {
    case DType::kF16:
      LoadState<F16Memory>(p, copy);
      Chunks(p, copy, p.columns);
      return StoreState<F16Memory>(p, copy);
    case DType::kBF16:
      LoadState<Bf16Memory>(p, copy);
      Chunks(p, copy, p.columns);
      return StoreState<Bf16Memory>(p, copy);
    default:
      return Chunks(p, static_cast<float*>(p.state) + p.column_begin, p.state_ld);
  }
}

void ChunkedRecurrenceImpl(const RecurrenceParams& p) {
  RecurrenceParams part = p;
  for (int token = 0; token < p.tokens; token += kSplitTokens) {
    part.q = p.q + token * p.ld;
    part.f = p.f + token * p.ld;
    part.i = p.i + token * p.ld;
    part.o = p.o + token * p.ldo;
    part.tokens = HWY_MIN(kSplitTokens, p.tokens - token);
    part.zero_state = p.zero_state && token == 0;
    SplitImpl(part);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace hgrn2::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hgrn2::cpu {

RecurrenceScratch::RecurrenceScratch(int head_dim)
    : ld(RoundUp(head_dim, 32) + 16),
      q(static_cast<size_t>(kChunkTokens * ld)),
      g(static_cast<size_t>(kChunkTokens * ld)),
      k(static_cast<size_t>(kChunkTokens * ld)),
      i(static_cast<size_t>(kChunkTokens * ld)),
      o(static_cast<size_t>(kChunkTokens * ld)),
      decay(static_cast<size_t>(ld)),
      state(static_cast<size_t>(head_dim * RoundUp(head_dim, kStateColumnPadding))),
      scores{} {}

HWY_EXPORT(RecurrentStepImpl);
HWY_EXPORT(ChunkedRecurrenceImpl);

void RecurrentStep(const RecurrenceParams& params) {
  HWY_DYNAMIC_DISPATCH(RecurrentStepImpl)(params);
}
void ChunkedRecurrence(const RecurrenceParams& params) {
  HWY_DYNAMIC_DISPATCH(ChunkedRecurrenceImpl)(params);
}

}  // namespace hgrn2::cpu
#endif  // HWY_ONCE
