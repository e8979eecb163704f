#include "kernels/reference/hgrn2_recurrence.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace hgrn2::reference {
namespace {

// 1 - exp(log_g), accurate for gates near 1.
double Key(double log_g) { return -std::expm1(log_g); }

// p restricted to tokens [begin, begin + count).
RecurrenceParams Slice(const RecurrenceParams& p, int64_t begin, int64_t count) {
  RecurrenceParams s = p;
  s.num_tokens = count;
  s.q += begin * p.key_dim;
  s.log_g += begin * p.key_dim;
  s.i += begin * p.value_dim;
  s.o += begin * p.value_dim;
  return s;
}

// Walks back from token t: row s of the walk holds log(G_t / G_s) = sum of log_g over (s, t]. Sums
// that start at t lose nothing to cancellation and stay right behind a gate of exactly 0, which
// differences of sums that start at the chunk's first token would not.
class DecayWalk {
 public:
  DecayWalk(const RecurrenceParams& p, int64_t t) : p_(p), t_(t), log_decay_(p.key_dim, 0.0) {}

  int64_t token() const { return t_; }
  // G_t / G_s of the current token s.
  double Decay(int64_t k) const { return std::exp(log_decay_[k]); }
  // To the token before; past token 0, Decay is G_t.
  void Back() {
    for (int64_t k = 0; k < p_.key_dim; ++k) log_decay_[k] += p_.log_g[t_ * p_.key_dim + k];
    --t_;
  }

 private:
  const RecurrenceParams& p_;
  int64_t t_;
  std::vector<double> log_decay_;
};

// o_t = scale [ (q_t . G_t)^T S_0 + sum_{s <= t} ((q_t . G_t / G_s)^T k_s) i_s ]
void OutputFromStart(const RecurrenceParams& p, int64_t t) {
  const int64_t K = p.key_dim;
  const int64_t V = p.value_dim;
  const double* q = p.q + t * K;
  double* o = p.o + t * V;
  std::fill_n(o, V, 0.0);
  DecayWalk walk(p, t);
  for (; walk.token() >= 0; walk.Back()) {
    const int64_t s = walk.token();
    double score = 0;
    for (int64_t k = 0; k < K; ++k) score += q[k] * walk.Decay(k) * Key(p.log_g[s * K + k]);
    for (int64_t v = 0; v < V; ++v) o[v] += score * p.i[s * V + v];
  }
  for (int64_t k = 0; k < K; ++k) {
    const double weight = q[k] * walk.Decay(k);
    for (int64_t v = 0; v < V; ++v) o[v] += weight * p.state[k * V + v];
  }
  for (int64_t v = 0; v < V; ++v) o[v] *= p.scale;
}

// S_C = diag(G_C) S_0 + sum_s (G_C / G_s . k_s) i_s^T
void FoldIntoState(const RecurrenceParams& p) {
  const int64_t K = p.key_dim;
  const int64_t V = p.value_dim;
  std::vector<double> sum(K * V, 0.0);
  DecayWalk walk(p, p.num_tokens - 1);
  for (; walk.token() >= 0; walk.Back()) {
    const int64_t s = walk.token();
    for (int64_t k = 0; k < K; ++k) {
      const double weight = walk.Decay(k) * Key(p.log_g[s * K + k]);
      for (int64_t v = 0; v < V; ++v) sum[k * V + v] += weight * p.i[s * V + v];
    }
  }
  for (int64_t k = 0; k < K; ++k) {
    const double total = walk.Decay(k);
    for (int64_t v = 0; v < V; ++v)
      p.state[k * V + v] = total * p.state[k * V + v] + sum[k * V + v];
  }
}

}  // namespace

void RecurrentForward(const RecurrenceParams& p) {
  const int64_t K = p.key_dim;
  const int64_t V = p.value_dim;
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    double* o = p.o + t * V;
    std::fill_n(o, V, 0.0);
    for (int64_t k = 0; k < K; ++k) {
      const double gate = std::exp(p.log_g[t * K + k]);
      const double key = Key(p.log_g[t * K + k]);
      const double query = p.scale * p.q[t * K + k];
      double* row = p.state + k * V;
      for (int64_t v = 0; v < V; ++v) {
        row[v] = gate * row[v] + key * p.i[t * V + v];
        o[v] += query * row[v];
      }
    }
  }
}

void ChunkedForward(const RecurrenceParams& p, int64_t chunk_size) {
  for (int64_t begin = 0; begin < p.num_tokens; begin += chunk_size) {
    const RecurrenceParams chunk = Slice(p, begin, std::min(chunk_size, p.num_tokens - begin));
    for (int64_t t = 0; t < chunk.num_tokens; ++t) OutputFromStart(chunk, t);
    FoldIntoState(chunk);
  }
}

void ReplayForward(const RecurrenceParams& p, int64_t window) {
  int64_t begin = 0;  // first token that the state has not seen
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    const RecurrenceParams ring = Slice(p, begin, t - begin + 1);
    OutputFromStart(ring, ring.num_tokens - 1);
    if (ring.num_tokens == window || t + 1 == p.num_tokens) {
      FoldIntoState(ring);
      begin = t + 1;
    }
  }
}

}  // namespace hgrn2::reference
