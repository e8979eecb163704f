// Runs a test once for every instruction set of this CPU.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace hgrn2::cpu {

class EachTarget : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if ((hwy::SupportedTargets() & GetParam()) == 0) GTEST_SKIP() << "not on this CPU";
    hwy::SetSupportedTargetsForTest(GetParam());
  }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

// The targets that kernels/cpu is compiled for and this CPU may have.
#if HWY_ARCH_X86
inline auto Targets() { return ::testing::Values(HWY_AVX3, HWY_AVX2, HWY_SSE4); }
#else
inline auto Targets() { return ::testing::Values(HWY_NEON); }
#endif
inline std::string TargetName(const ::testing::TestParamInfo<int64_t>& info) {
  return hwy::TargetName(info.param);
}

inline double RelativeError(const float* actual, const std::vector<double>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(actual[i] - expected[i], 2);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

}  // namespace hgrn2::cpu
