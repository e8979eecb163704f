// Device buffers, element conversions and the float64 reference of the recurrence tests.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda::test {

inline bool HasGpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

#define HGRN2_REQUIRE_GPU() \
  if (!::hgrn2::cuda::test::HasGpu()) GTEST_SKIP() << "no CUDA device"

#define EXPECT_CUDA_OK(expr)                                               \
  do {                                                                     \
    const cudaError_t e_ = (expr);                                         \
    EXPECT_EQ(e_, cudaSuccess) << #expr << ": " << cudaGetErrorString(e_); \
  } while (false)

// Device memory that starts as 0xFF bytes: NaN in every float format used here.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    EXPECT_CUDA_OK(cudaMalloc(&data_, bytes));
    EXPECT_CUDA_OK(cudaMemset(data_, 0xFF, bytes));
  }
  Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr;
  }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() { cudaFree(data_); }

  void* get() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void Write(const void* from, size_t bytes, size_t offset = 0) {
    ASSERT_LE(offset + bytes, bytes_);
    EXPECT_CUDA_OK(cudaMemcpy(static_cast<char*>(data_) + offset, from, bytes, cudaMemcpyDefault));
  }
  std::vector<uint8_t> Read() const {
    std::vector<uint8_t> out(bytes_);
    EXPECT_CUDA_OK(cudaMemcpy(out.data(), data_, bytes_, cudaMemcpyDefault));
    return out;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

template <typename T>
Buffer Upload(const std::vector<T>& host) {
  Buffer buffer(host.size() * sizeof(T));
  if (!host.empty()) buffer.Write(host.data(), host.size() * sizeof(T));
  return buffer;
}

inline float Decode(DType type, const uint8_t* bytes, size_t i) {
  switch (type) {
    case DType::kF32: {
      float x;
      std::memcpy(&x, bytes + 4 * i, 4);
      return x;
    }
    case DType::kF16: {
      __half_raw x;
      std::memcpy(&x, bytes + 2 * i, 2);
      return __half2float(__half(x));
    }
    case DType::kBF16: {
      uint16_t bits;
      std::memcpy(&bits, bytes + 2 * i, 2);
      const uint32_t wide = static_cast<uint32_t>(bits) << 16;
      float x;
      std::memcpy(&x, &wide, 4);
      return x;
    }
    case DType::kF8E4M3: {
      __nv_fp8_e4m3 x;
      x.__x = bytes[i];
      return static_cast<float>(x);
    }
  }
  return 0;
}

inline void Encode(DType type, float x, uint8_t* bytes, size_t i) {
  switch (type) {
    case DType::kF32:
      std::memcpy(bytes + 4 * i, &x, 4);
      return;
    case DType::kF16: {
      const __half h = __float2half(x);
      std::memcpy(bytes + 2 * i, &h, 2);
      return;
    }
    case DType::kBF16: {
      const __nv_bfloat16 h = __float2bfloat16(x);
      std::memcpy(bytes + 2 * i, &h, 2);
      return;
    }
    case DType::kF8E4M3:
      bytes[i] = __nv_fp8_e4m3(x).__x;
      return;
  }
}

inline std::vector<uint8_t> EncodeAll(DType type, const std::vector<float>& x) {
  std::vector<uint8_t> bytes(x.size() * SizeOf(type));
  for (size_t i = 0; i < x.size(); ++i) Encode(type, x[i], bytes.data(), i);
  return bytes;
}
inline std::vector<float> DecodeAll(DType type, const std::vector<uint8_t>& bytes) {
  std::vector<float> x(bytes.size() / SizeOf(type));
  for (size_t i = 0; i < x.size(); ++i) x[i] = Decode(type, bytes.data(), i);
  return x;
}

// |got - want| / |want|; NaN if anything is not finite.
inline double RelativeError(const std::vector<float>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(difference / norm);
}

struct Shape {
  int heads;
  int head_dim;
  int d() const { return heads * head_dim; }
};

// q, f, i rows, exactly representable in `activation`. The gates are nasty: near one, near zero,
// and in a tenth of the channels closed (exactly zero in float32) for long stretches.
inline std::vector<float> RandomQfi(int tokens, int d, DType activation, std::mt19937& random,
                                    double closed_channels = 0.1) {
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> uniform;
  std::vector<double> closed(d);
  for (double& c : closed) c = uniform(random) < closed_channels ? 1 : 0;
  std::vector<float> x(static_cast<size_t>(tokens) * 3 * d);
  for (int t = 0; t < tokens; ++t) {
    for (int c = 0; c < 3 * d; ++c) {
      float v = normal(random);
      if (c >= d && c < 2 * d) {
        const double kind = uniform(random);
        v = 2 * v + 1;
        if (closed[c - d] != 0 && (t / 24) % 2 == 0)
          v = -30 + 8 * v;
        else if (kind < 0.02)
          v = -120;
        else if (kind < 0.04)
          v = 120;
        else if (kind < 0.08)
          v -= 12;
        else if (kind < 0.2)
          v += 6;
      }
      x[static_cast<size_t>(t) * 3 * d + c] = v;
    }
  }
  return DecodeAll(activation, EncodeAll(activation, x));
}

inline std::vector<float> RandomLowerBound(int d, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform;
  std::vector<float> lb(d);
  for (float& x : lb) {
    const float kind = uniform(random);
    x = kind < 0.4f ? 0.0f : kind < 0.9f ? 0.5f * uniform(random) : 0.99f;
  }
  return lb;
}

// The equations of HGRN2 in float64: one sequence, one layer.
class ReferenceSequence {
 public:
  explicit ReferenceSequence(Shape shape)
      : shape_(shape), state_(static_cast<size_t>(shape.d()) * shape.head_dim) {}

  void Reset() { state_.assign(state_.size(), 0.0); }
  std::vector<double>& state() { return state_; }

  // qfi [3d] -> o [d]
  std::vector<double> Step(const float* qfi, const float* lower_bound) {
    const int K = shape_.head_dim, d = shape_.d();
    std::vector<double> o(d);
    for (int h = 0; h < shape_.heads; ++h) {
      for (int k = 0; k < K; ++k) {
        const int c = h * K + k;
        const double q = qfi[c] / (1 + std::exp(-static_cast<double>(qfi[c])));
        const double lb = lower_bound[c];
        const double g = lb + (1 - lb) / (1 + std::exp(-static_cast<double>(qfi[d + c])));
        const double keep = (1 - lb) / (1 + std::exp(static_cast<double>(qfi[d + c])));
        double* row = &state_[(static_cast<size_t>(h) * K + k) * K];
        for (int v = 0; v < K; ++v) {
          row[v] = g * row[v] + keep * qfi[2 * d + h * K + v];
          o[h * K + v] += q * row[v];
        }
      }
    }
    for (double& x : o) x /= std::sqrt(static_cast<double>(K));
    return o;
  }

 private:
  Shape shape_;
  std::vector<double> state_;  // [H][K][V]
};

// A layer's slab on the device, poisoned.
struct Slab {
  Slab(DType type, int slots, Shape s)
      : dtype(type),
        shape(s),
        state(SizeOf(type) * slots * s.d() * s.head_dim),
        scales(type == DType::kF8E4M3 ? sizeof(float) * slots * s.d() : 0) {}
  StateSlab view() const { return {state.get(), scales.as<float>(), dtype}; }

  DType dtype;
  Shape shape;
  Buffer state;
  Buffer scales;
};

// What is left of a state that is rounded to `type`, relative to its norm.
inline double StateTolerance(DType type) {
  switch (type) {
    case DType::kF32:
      return 2e-6;
    case DType::kF16:
      return 5e-4;
    case DType::kBF16:
      return 4e-3;
    case DType::kF8E4M3:
      return 4e-2;
  }
  return 0;
}

inline std::vector<double> SumSquares(const std::vector<double>& o) {
  std::vector<double> sums(o.size() / kSumSquareGroup);
  for (size_t i = 0; i < o.size(); ++i) sums[i / kSumSquareGroup] += o[i] * o[i];
  return sums;
}

// float32 states of `slots`, ring included.
inline std::vector<float> GatherStates(const Slab& slab, const ReplayRing& ring,
                                       const Buffer& lower_bound, const std::vector<int32_t>& slots,
                                       DType activation) {
  const Buffer slot_buffer = Upload(slots);
  Buffer out(sizeof(float) * slots.size() * slab.shape.d() * slab.shape.head_dim);
  GatherStateParams p;
  p.state = slab.view();
  p.ring = ring;
  p.lower_bound = lower_bound.as<float>();
  p.slots = slot_buffer.as<int32_t>();
  p.out = out.as<float>();
  p.batch = static_cast<int32_t>(slots.size());
  p.num_heads = slab.shape.heads;
  p.head_dim = slab.shape.head_dim;
  p.activation = activation;
  EXPECT_CUDA_OK(LaunchGatherState(p, nullptr));
  EXPECT_CUDA_OK(cudaDeviceSynchronize());
  return DecodeAll(DType::kF32, out.Read());
}

inline void ScatterStates(const Slab& slab, const std::vector<float>& states,
                          const std::vector<int32_t>& slots) {
  const Buffer slot_buffer = Upload(slots), in = Upload(states);
  ScatterStateParams p;
  p.state = slab.view();
  p.in = in.as<float>();
  p.slots = slot_buffer.as<int32_t>();
  p.batch = static_cast<int32_t>(slots.size());
  p.num_heads = slab.shape.heads;
  p.head_dim = slab.shape.head_dim;
  EXPECT_CUDA_OK(LaunchScatterState(p, nullptr));
  EXPECT_CUDA_OK(cudaDeviceSynchronize());
}

}  // namespace hgrn2::cuda::test
