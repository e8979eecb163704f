// Fixture and helpers of the CUDA kernel tests: device arrays, random data, error norms.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/dtype.h"

namespace hgrn2::cuda {

#define ASSERT_CUDA(expr) ASSERT_EQ(expr, cudaSuccess)

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no CUDA device";
    cudaDeviceProp properties;
    ASSERT_CUDA(cudaGetDeviceProperties(&properties, 0));
    hopper_ = properties.major == 9;
  }
  void TearDown() override {
    if (!IsSkipped()) {
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    }
  }
  bool hopper_ = false;
};

// An array in device memory, poisoned (0xFF: NaN) unless it is made from values.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size) : size_(size) {
    EXPECT_EQ(cudaMalloc(&data_, size * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemset(data_, 0xFF, size * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return static_cast<T*>(data_); }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }

 private:
  size_t size_;
  void* data_ = nullptr;
};

inline std::vector<float> Normal(size_t size, uint32_t seed, float scale = 1.0f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(size);
  for (float& v : values) v = normal(rng);
  return values;
}
inline std::vector<__nv_bfloat16> ToBf16(const std::vector<float>& values) {
  std::vector<__nv_bfloat16> out;
  for (const float v : values) out.push_back(__float2bfloat16(v));
  return out;
}
template <typename T>
std::vector<double> ToDouble(const std::vector<T>& values) {
  std::vector<double> out;
  for (const T& v : values) out.push_back(static_cast<double>(static_cast<float>(v)));
  return out;
}
// Euclidean, of rows of `cols` values.
inline std::vector<double> RowNorms(const std::vector<double>& values, int64_t cols) {
  std::vector<double> norms(values.size() / cols);
  for (size_t i = 0; i < values.size(); ++i) norms[i / cols] += values[i] * values[i];
  for (double& norm : norms) norm = std::sqrt(norm);
  return norms;
}
// ||a - b|| / ||b||; NaN in either is infinite.
inline double RelativeError(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return INFINITY;
    error += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(error / (norm > 0 ? norm : 1));
}

}  // namespace hgrn2::cuda
