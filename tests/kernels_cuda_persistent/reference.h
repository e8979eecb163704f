// The forward equations in double precision, token by token, for one sequence. With `rounded`,
// values are rounded to bfloat16 (and states to their dtype) where the kernel stores them, so that
// what is left between the two is the order of additions and the kernel's float32: a tight bound
// catches wrong indexing that bfloat16's noise would hide.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/dtype.h"
#include "tests/kernels_cuda_persistent/random_model.h"

namespace hgrn2::cuda::test {

class ReferenceSequence {
 public:
  ReferenceSequence(const HostModel& model, bool rounded, DType state_dtype, int ring_length)
      : model_(model),
        rounded_(rounded),
        dtype_(state_dtype),
        ring_length_(ring_length),
        state_(model.layers * model.d * (model.d / model.heads), 0.0) {}

  std::vector<double>& state() { return state_; }  // [L][H][K][V]

  std::vector<double> Step(int token) {
    const int64_t d = model_.d, m = model_.m;
    std::vector<double> x(d);
    for (int64_t c = 0; c < d; ++c) x[c] = model_.embeddings.At(token, c);
    for (int64_t l = 0; l < model_.layers; ++l) {
      const HostLayer& layer = model_.layer[l];
      std::vector<double> y = Product(layer.qfi, Times(x, layer.attn_norm), InverseRms(x, 1e-6));
      for (double& v : y) v = Bf16(v);
      const std::vector<double> o = Recurrence(layer, l, y);
      Add(x, Product(layer.o, Times(o, layer.g_norm), InverseRms(o, 1e-5)));
      y = Product(layer.gate_up, Times(x, layer.mlp_norm), InverseRms(x, 1e-6));
      std::vector<double> u(m);
      for (int64_t i = 0; i < m; ++i) u[i] = Bf16(y[i] * Sigmoid(y[i]) * y[m + i]);
      Add(x, Product(layer.down, u, 1.0));
    }
    ++age_;
    return Product(model_.head, Times(x, model_.final_norm), InverseRms(x, 1e-6));
  }

 private:
  static double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
  static void Add(std::vector<double>& x, const std::vector<double>& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  static double InverseRms(const std::vector<double>& x, double eps) {
    double sum = 0;
    for (const double v : x) sum += v * v;
    return 1.0 / std::sqrt(sum / x.size() + eps);
  }
  double Bf16(double x) const { return rounded_ ? ToFloat(ToBf16(static_cast<float>(x))) : x; }
  double StateRounded(double x) const {
    if (!rounded_) return x;
    if (dtype_ == DType::kF16) return __half2float(__float2half(static_cast<float>(x)));
    if (dtype_ == DType::kBF16) return Bf16(x);
    return static_cast<float>(x);
  }
  std::vector<double> Times(const std::vector<double>& x, const std::vector<float>& w) const {
    std::vector<double> y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = Bf16(x[i] * w[i]);
    return y;
  }
  std::vector<double> Product(const HostMatrix& w, const std::vector<double>& x,
                              double scale) const {
    std::vector<double> y(w.rows);
    const double* in = x.data();
    double* out = y.data();
    Parallel(w.rows, [&w, in, out, scale](int64_t r) {
      double sum = 0;
      for (int64_t c = 0; c < w.cols; ++c) sum += static_cast<double>(w.At(r, c)) * in[c];
      out[r] = sum * scale;
    });
    return y;
  }
  std::vector<double> Recurrence(const HostLayer& layer, int64_t l,
                                 const std::vector<double>& qfi) {
    const int64_t d = model_.d, k_dim = d / model_.heads;
    // As ReplayRing says: x = (age + phase) % length with the layer as phase; folds at length - 1.
    const bool fold = ring_length_ <= 1 || (age_ + l) % ring_length_ == ring_length_ - 1;
    std::vector<double> o(d, 0.0);
    for (int64_t c = 0; c < d; ++c) {  // a row of a head's state
      const double f = qfi[d + c], lb = layer.lower_bound[c];
      const double g = lb + (1 - lb) * Sigmoid(f);
      const double q = qfi[c] * Sigmoid(qfi[c]) / std::sqrt(static_cast<double>(k_dim));
      const int64_t head = c / k_dim;
      double* row = state_.data() + (l * d + c) * k_dim;
      for (int64_t v = 0; v < k_dim; ++v) {
        row[v] = g * row[v] + (1 - g) * qfi[2 * d + head * k_dim + v];
        o[head * k_dim + v] += q * row[v];
        if (fold) row[v] = StateRounded(row[v]);
      }
    }
    return o;
  }

  const HostModel& model_;
  const bool rounded_;
  const DType dtype_;
  const int ring_length_;
  int age_ = 0;
  std::vector<double> state_;
};

}  // namespace hgrn2::cuda::test
