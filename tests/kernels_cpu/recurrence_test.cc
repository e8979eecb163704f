// The two forms of the recurrence against double precision, on every instruction set.
#include "kernels/cpu/recurrence.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/reference/hgrn2_recurrence.h"
#include "kernels/reference/hgrn2_reference.h"
#include "tests/kernels_cpu/targets.h"

namespace hgrn2::cpu {
namespace {

class RecurrenceTest : public EachTarget {};

struct Case {
  int tokens, dim;
  int64_t ld;
  AlignedBuffer<float> q, f, i, lower_bound, state;
  int64_t state_ld;

  // gate_scale: standard deviation of the gates' logits.
  Case(int tokens_, int dim_, float gate_scale)
      : tokens(tokens_), dim(dim_), ld(dim + 5), state_ld(RoundUp(dim, kStateColumnPadding)) {
    std::mt19937 rng(static_cast<uint32_t>(tokens * 1000 + dim));
    std::normal_distribution<float> normal;
    const auto fill = [&](AlignedBuffer<float>* b, float scale) {
      *b = AlignedBuffer<float>(static_cast<size_t>(tokens * ld + 32));
      for (size_t j = 0; j < b->size(); ++j) (*b)[j] = scale * normal(rng);
    };
    fill(&q, 1);
    fill(&f, gate_scale);
    fill(&i, 1);
    lower_bound = AlignedBuffer<float>(static_cast<size_t>(dim + 32));
    for (int c = 0; c < dim; c += 2)
      lower_bound[c] = 0.9f * static_cast<float>(c) / static_cast<float>(dim);
    state = AlignedBuffer<float>(static_cast<size_t>(dim * state_ld));
    for (int k = 0; k < dim; ++k) {
      for (int v = 0; v < dim; ++v) state[k * state_ld + v] = normal(rng);
    }
  }

  struct Result {
    std::vector<float> o, state;
  };

  // From token `begin`, in pieces of `step`, columns in pieces of `columns`.
  Result Run(int step, int columns, bool zero_state) {
    AlignedBuffer<float> s(state.size());
    std::memcpy(s.data(), state.data(), state.size() * 4);
    auto scratch = std::make_unique<RecurrenceScratch>(dim);
    Result result;
    result.o.assign(static_cast<size_t>(tokens * dim), NAN);
    for (int token = 0; token < tokens; token += step) {
      for (int column = 0; column < state_ld; column += columns) {
        RecurrenceParams p;
        p.q = q.data() + token * ld;
        p.f = f.data() + token * ld;
        p.i = i.data() + token * ld;
        p.ld = ld;
        p.lower_bound = lower_bound.data();
        p.tokens = std::min(step, tokens - token);
        p.head_dim = dim;
        p.state = s.data();
        p.state_ld = state_ld;
        p.column_begin = column;
        p.columns = static_cast<int>(std::min<int64_t>(columns, state_ld - column));
        p.zero_state = zero_state && token == 0;
        p.o = result.o.data() + token * dim;
        p.ldo = dim;
        p.scratch = scratch.get();
        step == 1 ? RecurrentStep(p) : ChunkedRecurrence(p);
      }
    }
    for (int k = 0; k < dim; ++k) {
      for (int v = 0; v < state_ld; ++v) {
        if (v < dim) {
          result.state.push_back(s[k * state_ld + v]);
        } else {
          EXPECT_EQ(s[k * state_ld + v], 0) << "padding";
        }
      }
    }
    return result;
  }

  void Expected(bool zero_state, std::vector<double>* o, std::vector<double>* s) const {
    std::vector<double> dq, log_g, di;
    s->clear();
    for (int k = 0; k < dim; ++k) {
      for (int v = 0; v < dim; ++v) s->push_back(zero_state ? 0.0 : state[k * state_ld + v]);
    }
    for (int t = 0; t < tokens; ++t) {
      for (int c = 0; c < dim; ++c) {
        dq.push_back(reference::Swish(q[t * ld + c]));
        log_g.push_back(reference::LogGate(f[t * ld + c], lower_bound[c]));
        di.push_back(i[t * ld + c]);
      }
    }
    o->assign(static_cast<size_t>(tokens * dim), 0);
    reference::RecurrentForward({.num_tokens = tokens,
                                 .key_dim = dim,
                                 .value_dim = dim,
                                 .scale = 1 / std::sqrt(static_cast<double>(dim)),
                                 .q = dq.data(),
                                 .log_g = log_g.data(),
                                 .i = di.data(),
                                 .state = s->data(),
                                 .o = o->data()});
  }
};

TEST_P(RecurrenceTest, AgreesWithDouble) {
  for (const float gate_scale : {1.0f, 30.0f, 1000.0f}) {
    for (const int dim : {4, 20, 32, 64, 100, 128, 256}) {
      for (const int tokens : {1, 2, 16, 17, 40}) {
        Case c(tokens, dim, gate_scale);
        // An output of few terms may cancel.
        const double tolerance = dim < 32 ? 2e-5 : 2e-6;
        for (const bool zero_state : {false, true}) {
          std::vector<double> o, s;
          c.Expected(zero_state, &o, &s);
          for (const int step : {1, 7, 16, 100}) {
            const Case::Result r = c.Run(step, static_cast<int>(c.state_ld), zero_state);
            ASSERT_LE(RelativeError(r.o.data(), o), tolerance)
                << "dim " << dim << " tokens " << tokens << " by " << step << " gates "
                << gate_scale;
            ASSERT_LE(RelativeError(r.state.data(), s), 2e-6)
                << "dim " << dim << " tokens " << tokens << " by " << step << " gates "
                << gate_scale;
          }
        }
      }
    }
  }
}

TEST_P(RecurrenceTest, CutsByColumnsAreTheSameBits) {
  for (const int dim : {128, 100}) {
    Case c(33, dim, 2);
    for (const int step : {1, 33}) {
      const Case::Result whole = c.Run(step, static_cast<int>(c.state_ld), false);
      for (const int columns : {16, 32, 48}) {
        const Case::Result cut = c.Run(step, columns, false);
        EXPECT_EQ(cut.o, whole.o) << columns;
        EXPECT_EQ(cut.state, whole.state) << columns;
      }
    }
  }
}

// A 16-bit state is the float32 state rounded once a step.
TEST_P(RecurrenceTest, SixteenBitStatesAreRoundedOnce) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (const int tokens : {1, 20}) {
      constexpr int kDim = 48;
      Case c(tokens, kDim, 2);
      std::vector<uint16_t> bits(c.state.size());
      ConvertFromFloat(c.state.data(), dtype, static_cast<int64_t>(bits.size()), bits.data());
      ConvertToFloat(bits.data(), dtype, static_cast<int64_t>(bits.size()), c.state.data());
      const Case::Result expected = c.Run(tokens, kDim, false);
      auto scratch = std::make_unique<RecurrenceScratch>(kDim);
      std::vector<float> o(static_cast<size_t>(tokens * kDim));
      RecurrenceParams p;
      p.q = c.q.data();
      p.f = c.f.data();
      p.i = c.i.data();
      p.ld = c.ld;
      p.lower_bound = c.lower_bound.data();
      p.tokens = tokens;
      p.head_dim = kDim;
      p.state = bits.data();
      p.state_ld = kDim;
      p.state_dtype = dtype;
      p.columns = kDim;
      p.o = o.data();
      p.ldo = kDim;
      p.scratch = scratch.get();
      tokens == 1 ? RecurrentStep(p) : ChunkedRecurrence(p);
      EXPECT_EQ(o, expected.o);
      std::vector<uint16_t> rounded(bits.size());
      ConvertFromFloat(expected.state.data(), dtype, static_cast<int64_t>(bits.size()),
                       rounded.data());
      EXPECT_EQ(bits, rounded);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, RecurrenceTest, Targets(), TargetName);

}  // namespace
}  // namespace hgrn2::cpu
