// The whole model in double precision, written to be read and compared with docs/model.md: the
// oracle of the parity tests. Slow; one token at a time; no dependencies.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/reference/hgrn2_recurrence.h"

namespace hgrn2::reference {

struct Shape {
  int64_t hidden_size = 0;        // d = H * K
  int64_t num_layers = 0;         // L
  int64_t num_heads = 0;          // H
  int64_t head_dim = 0;           // K = V
  int64_t intermediate_size = 0;  // m
  int64_t vocab_size = 0;
  int64_t conv_size = 0;  // 0: no short convolution
  double norm_eps = 1e-6;
};

// Row-major; a projection [out, in] computes y = W x.
struct Layer {
  std::vector<float> attn_norm;                       // [d]
  std::vector<float> q_proj, f_proj, i_proj, o_proj;  // [d, d]
  std::vector<float> q_conv, f_conv, i_conv;          // [d, conv_size] or empty
  std::vector<float> g_norm;                          // [d] or empty: weight 1
  std::vector<float> lower_bound;                     // [d]; zeros where there is none
  std::vector<float> mlp_norm;                        // [d]
  std::vector<float> gate_proj, up_proj;              // [m, d]
  std::vector<float> down_proj;                       // [d, m]
};

struct Model {
  Shape shape;
  std::vector<float> embeddings;  // [vocab, d]
  std::vector<Layer> layers;
  std::vector<float> norm;     // [d]
  std::vector<float> lm_head;  // [vocab, d]; empty: the embeddings
};

// What a sequence carries. A new one starts with zeros.
struct State {
  explicit State(const Shape& shape);
  std::vector<double> s;     // [L, H, K, V]
  std::vector<double> conv;  // [L, 3 (q, f, i), conv_size - 1, d], oldest input first
};

// The reference's g_norm has this eps whatever norm_eps says.
inline constexpr double kGNormEps = 1e-5;

// y = x / sqrt(mean(x^2) + eps) * weight over n elements; weight null: 1. y may be x.
void RmsNorm(const double* x, const float* weight, double eps, int64_t n, double* y);

// y[n_out] = W x, W [n_out, n_in]; y must not be x.
void Linear(const float* weight, const double* x, int64_t n_out, int64_t n_in, double* y);

// x * sigmoid(x)
double Swish(double x);

// log of lb + (1 - lb) * sigmoid(f), exact to double precision for every finite f and lb in [0, 1).
double LogGate(double f, double lower_bound);

// Causal depthwise convolution of one token: y[c] = sum_j weight[c, j] * input_j[c], where inputs 0
// to size - 2 are `history` [size - 1, d], oldest first, and the last is x [d]. Shifts x into the
// history. weight [d, size]. y may be x.
void ShortConv(const float* weight, const double* x, int64_t d, int64_t size, double* history,
               double* y);

// Feeds `tokens` to `state`. Returns the logits of every token, [T, vocab].
std::vector<double> Forward(const Model& model, const std::vector<int32_t>& tokens, State* state);

}  // namespace hgrn2::reference
