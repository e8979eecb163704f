#include "kernels/reference/hgrn2_reference.h"

#include <cmath>

namespace hgrn2::reference {
namespace {

using Vector = std::vector<double>;

// log(sigmoid(x))
double LogSigmoid(double x) {
  return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x));
}

double* ConvHistory(State* state, const Shape& shape, int64_t layer, int64_t which) {
  return state->conv.data() + (layer * 3 + which) * (shape.conv_size - 1) * shape.hidden_size;
}

Vector Project(const std::vector<float>& weight, const Vector& x, int64_t n_out) {
  Vector y(n_out);
  Linear(weight.data(), x.data(), n_out, static_cast<int64_t>(x.size()), y.data());
  return y;
}

// The token mixer of one layer on one token: x [d] is normalised already.
Vector Attention(const Shape& shape, const Layer& layer, int64_t index, const Vector& x,
                 State* state) {
  const int64_t d = shape.hidden_size;
  const int64_t K = shape.head_dim;
  Vector q = Project(layer.q_proj, x, d);
  Vector f = Project(layer.f_proj, x, d);
  Vector i = Project(layer.i_proj, x, d);
  if (shape.conv_size > 0) {
    const auto convolve = [&](const std::vector<float>& weight, int64_t which, Vector& y) {
      ShortConv(weight.data(), y.data(), d, shape.conv_size,
                ConvHistory(state, shape, index, which), y.data());
    };
    convolve(layer.q_conv, 0, q);
    convolve(layer.f_conv, 1, f);
    convolve(layer.i_conv, 2, i);
  }
  Vector log_g(d);
  for (int64_t c = 0; c < d; ++c) {
    q[c] = Swish(q[c]);
    log_g[c] = LogGate(f[c], layer.lower_bound[c]);
  }
  Vector o(d);
  for (int64_t h = 0; h < shape.num_heads; ++h) {
    RecurrentForward({.num_tokens = 1,
                      .key_dim = K,
                      .value_dim = K,
                      .scale = 1 / std::sqrt(static_cast<double>(K)),
                      .q = q.data() + h * K,
                      .log_g = log_g.data() + h * K,
                      .i = i.data() + h * K,
                      .state = state->s.data() + (index * shape.num_heads + h) * K * K,
                      .o = o.data() + h * K});
  }
  RmsNorm(o.data(), layer.g_norm.empty() ? nullptr : layer.g_norm.data(), kGNormEps, d, o.data());
  return Project(layer.o_proj, o, d);
}

Vector Mlp(const Shape& shape, const Layer& layer, const Vector& x) {
  Vector gate = Project(layer.gate_proj, x, shape.intermediate_size);
  const Vector up = Project(layer.up_proj, x, shape.intermediate_size);
  for (size_t j = 0; j < gate.size(); ++j) gate[j] = Swish(gate[j]) * up[j];
  return Project(layer.down_proj, gate, shape.hidden_size);
}

Vector Normalised(const Vector& x, const std::vector<float>& weight, double eps) {
  Vector y(x.size());
  RmsNorm(x.data(), weight.data(), eps, static_cast<int64_t>(x.size()), y.data());
  return y;
}

void AddTo(Vector& x, const Vector& y) {
  for (size_t c = 0; c < x.size(); ++c) x[c] += y[c];
}

}  // namespace

State::State(const Shape& shape)
    : s(shape.num_layers * shape.hidden_size * shape.head_dim),
      conv(shape.conv_size > 0 ? shape.num_layers * 3 * (shape.conv_size - 1) * shape.hidden_size
                               : 0) {}

void RmsNorm(const double* x, const float* weight, double eps, int64_t n, double* y) {
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += x[c] * x[c];
  const double factor = 1 / std::sqrt(sum / static_cast<double>(n) + eps);
  for (int64_t c = 0; c < n; ++c) y[c] = x[c] * factor * (weight ? weight[c] : 1.0f);
}

void Linear(const float* weight, const double* x, int64_t n_out, int64_t n_in, double* y) {
  for (int64_t r = 0; r < n_out; ++r) {
    double sum = 0;
    for (int64_t c = 0; c < n_in; ++c) sum += weight[r * n_in + c] * x[c];
    y[r] = sum;
  }
}

double Swish(double x) { return x / (1 + std::exp(-x)); }

double LogGate(double f, double lower_bound) {
  if (lower_bound <= 0) return LogSigmoid(f);
  // logaddexp(log lb, log(1 - lb) + logsigmoid(f)), with the larger term taken out.
  const double a = std::log(lower_bound);
  const double b = std::log1p(-lower_bound) + LogSigmoid(f);
  const double high = a > b ? a : b;
  const double low = a > b ? b : a;
  return high + std::log1p(std::exp(low - high));
}

void ShortConv(const float* weight, const double* x, int64_t d, int64_t size, double* history,
               double* y) {
  for (int64_t c = 0; c < d; ++c) {
    const double newest = x[c];
    double sum = weight[c * size + size - 1] * newest;
    for (int64_t j = 0; j + 1 < size; ++j) sum += weight[c * size + j] * history[j * d + c];
    for (int64_t j = 0; j + 2 < size; ++j) history[j * d + c] = history[(j + 1) * d + c];
    if (size > 1) history[(size - 2) * d + c] = newest;
    y[c] = sum;
  }
}

std::vector<double> Forward(const Model& model, const std::vector<int32_t>& tokens, State* state) {
  const Shape& shape = model.shape;
  const int64_t d = shape.hidden_size;
  const std::vector<float>& head = model.lm_head.empty() ? model.embeddings : model.lm_head;
  Vector logits;
  logits.reserve(tokens.size() * shape.vocab_size);
  for (const int32_t token : tokens) {
    const float* row = model.embeddings.data() + token * d;
    Vector x(row, row + d);
    for (int64_t l = 0; l < shape.num_layers; ++l) {
      const Layer& layer = model.layers[l];
      AddTo(x, Attention(shape, layer, l, Normalised(x, layer.attn_norm, shape.norm_eps), state));
      AddTo(x, Mlp(shape, layer, Normalised(x, layer.mlp_norm, shape.norm_eps)));
    }
    const Vector y = Project(head, Normalised(x, model.norm, shape.norm_eps), shape.vocab_size);
    logits.insert(logits.end(), y.begin(), y.end());
  }
  return logits;
}

}  // namespace hgrn2::reference
