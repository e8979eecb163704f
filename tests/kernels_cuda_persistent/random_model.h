// A model with random weights, on the host for a reference and on the device for the kernel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "kernels/cuda/model_view.h"

namespace hgrn2::cuda::test {

#define CHECK_CUDA(expr)                                                                          \
  do {                                                                                            \
    if (cudaError_t e_ = (expr); e_ != cudaSuccess) {                                             \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #expr, cudaGetErrorString(e_)); \
      std::exit(1);                                                                               \
    }                                                                                             \
  } while (false)

inline float ToFloat(uint16_t bf16) {
  const uint32_t bits = uint32_t{bf16} << 16;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
inline uint16_t ToBf16(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Uniform in [-1, 1), a pure function of (seed, i).
inline float Noise(uint64_t seed, uint64_t i) {
  uint64_t z = seed * 0x9e3779b97f4a7c15ull + i + 1;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) * (2.0f / 16777216.0f) - 1.0f;
}

template <typename Fn>
void Parallel(int64_t n, Fn fn) {
  const int64_t threads =
      std::max<int64_t>(1, std::min<int64_t>(n / 64, std::thread::hardware_concurrency()));
  std::vector<std::thread> pool;
  for (int64_t t = 0; t < threads; ++t) {
    pool.emplace_back([=] {
      for (int64_t i = n * t / threads; i < n * (t + 1) / threads; ++i) fn(i);
    });
  }
  for (auto& t : pool) t.join();
}

template <typename T>
T* Upload(const std::vector<T>& v) {
  T* device = nullptr;
  CHECK_CUDA(cudaMalloc(&device, std::max<size_t>(v.size(), 1) * sizeof(T)));
  CHECK_CUDA(cudaMemcpy(device, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
  return device;
}

struct HostMatrix {
  int64_t rows = 0, cols = 0;
  std::vector<uint16_t> bf16;  // or, if FP8:
  std::vector<uint8_t> fp8;
  std::vector<float> scale;

  float At(int64_t r, int64_t c) const {
    if (fp8.empty()) return ToFloat(bf16[r * cols + c]);
    __nv_fp8_e4m3 q;
    q.__x = fp8[r * cols + c];
    return static_cast<float>(q) * scale[r];
  }
  MatrixView Upload() const {
    MatrixView v;
    v.rows = rows;
    v.cols = cols;
    v.type = fp8.empty() ? DType::kBF16 : DType::kF8E4M3;
    v.data = fp8.empty() ? static_cast<void*>(test::Upload(bf16)) : test::Upload(fp8);
    v.scale = fp8.empty() ? nullptr : test::Upload(scale);
    return v;
  }
};

inline HostMatrix RandomMatrix(int64_t rows, int64_t cols, bool fp8, uint64_t seed) {
  HostMatrix m;
  m.rows = rows;
  m.cols = cols;
  const float amplitude = 1.7f / std::sqrt(static_cast<float>(cols));
  if (fp8) {
    m.fp8.resize(rows * cols);
    m.scale.resize(rows);
  } else {
    m.bf16.resize(rows * cols);
  }
  Parallel(rows, [&m, cols, fp8, seed, amplitude](int64_t r) {
    // Rows of different size, so that a wrong per-row factor shows; cubed, so that FP8's small and
    // subnormal numbers occur.
    const float row = amplitude * (1.5f + Noise(seed + 77, r));
    float largest = 0;
    for (int64_t c = 0; c < cols; ++c)
      largest = std::max(largest, std::fabs(Noise(seed, r * cols + c)));
    for (int64_t c = 0; c < cols; ++c) {
      const float x = Noise(seed, r * cols + c);
      if (fp8) {
        m.scale[r] = row / 448.0f;
        m.fp8[r * cols + c] = __nv_fp8_e4m3(x * x * x / (largest * largest * largest) * 448.0f).__x;
      } else {
        m.bf16[r * cols + c] = ToBf16(row * x);
      }
    }
  });
  return m;
}

inline std::vector<float> RandomVector(int64_t n, float low, float high, uint64_t seed) {
  std::vector<float> v(n);
  for (int64_t i = 0; i < n; ++i) v[i] = low + (high - low) * 0.5f * (Noise(seed, i) + 1.0f);
  return v;
}

struct HostLayer {
  HostMatrix qfi, o, gate_up, down;
  std::vector<float> attn_norm, g_norm, mlp_norm, lower_bound;
};

struct HostModel {
  int64_t d = 0, m = 0, heads = 0, vocab = 0, layers = 0;
  bool fp8 = false;
  std::vector<HostLayer> layer;
  HostMatrix embeddings, head;
  std::vector<float> final_norm;
};

inline HostModel RandomModel(int64_t d, int64_t heads, int64_t m, int64_t vocab, int64_t layers,
                             bool fp8, uint64_t seed) {
  HostModel h;
  h.d = d, h.m = m, h.heads = heads, h.vocab = vocab, h.layers = layers, h.fp8 = fp8;
  for (int64_t l = 0; l < layers; ++l) {
    HostLayer y;
    const uint64_t s = seed + 1000 * (l + 1);
    y.qfi = RandomMatrix(3 * d, d, fp8, s + 1);
    y.o = RandomMatrix(d, d, fp8, s + 2);
    y.gate_up = RandomMatrix(2 * m, d, fp8, s + 3);
    y.down = RandomMatrix(d, m, fp8, s + 4);
    y.attn_norm = RandomVector(d, 0.5f, 1.5f, s + 5);
    y.g_norm = RandomVector(d, 0.5f, 1.5f, s + 6);
    y.mlp_norm = RandomVector(d, 0.5f, 1.5f, s + 7);
    y.lower_bound = l == 0 ? std::vector<float>(d, 0.0f) : RandomVector(d, 0.0f, 0.9f, s + 8);
    h.layer.push_back(std::move(y));
  }
  h.embeddings = RandomMatrix(vocab, d, false, seed + 11);
  for (auto& e : h.embeddings.bf16) e = ToBf16(ToFloat(e) * 20.0f);  // unit-sized residual stream
  h.head = RandomMatrix(vocab, d, false, seed + 12);
  h.final_norm = RandomVector(d, 0.5f, 1.5f, seed + 13);
  return h;
}

// Device copies; leaked on purpose: the process is short.
struct DeviceModel {
  ModelView view;
  std::vector<LayerView> layers;
};

inline void UploadModel(const HostModel& h, DeviceModel* out) {
  ModelView& v = out->view;
  v.d = h.d, v.m = h.m, v.heads = h.heads, v.head_dim = h.d / h.heads, v.vocab = h.vocab;
  v.num_layers = h.layers;
  for (const HostLayer& l : h.layer) {
    LayerView y;
    y.qfi = l.qfi.Upload(), y.o = l.o.Upload(), y.gate_up = l.gate_up.Upload();
    y.down = l.down.Upload();
    y.attn_norm = Upload(l.attn_norm), y.g_norm = Upload(l.g_norm), y.mlp_norm = Upload(l.mlp_norm);
    y.lower_bound = Upload(l.lower_bound);
    out->layers.push_back(y);
  }
  v.layers = out->layers.data();
  v.embeddings = h.embeddings.Upload().data;
  v.lm_head = h.head.Upload();
  v.final_norm = Upload(h.final_norm);
}

}  // namespace hgrn2::cuda::test
