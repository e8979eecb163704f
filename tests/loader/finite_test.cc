#include "engine/loader/finite.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace hgrn2 {
namespace {

// `count` ordinary values of a dtype in unaligned memory, one of them replaced by `bits`.
struct Values {
  Values(DType dtype, int64_t count) : dtype(dtype), count(count) {
    for (int64_t i = 0; i < count; ++i) Set(i, dtype == DType::kF32 ? 0x7F7FFFFFu : 0x7BFFu);
  }
  void Set(int64_t i, uint32_t bits) {
    const size_t size = dtype == DType::kF32 ? 4 : 2;
    bytes.resize(static_cast<size_t>(count) * size + 1);
    std::memcpy(bytes.data() + 1 + i * static_cast<int64_t>(size), &bits, size);
  }
  TensorView view() const { return {.data = bytes.data() + 1, .dtype = dtype, .shape = {count}}; }

  DType dtype;
  int64_t count;
  std::vector<char> bytes;
};

TEST(FindNonFiniteTest, FindsTheFirstOfEveryKind) {
  struct Case {
    DType dtype;
    std::vector<uint32_t> bad;
  };
  const Case cases[] = {{DType::kF32, {0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001}},
                        {DType::kBF16, {0x7F80, 0xFF80, 0x7FC0, 0xFFFF}},
                        {DType::kF16, {0x7C00, 0xFC00, 0x7E00, 0x7C01}}};
  // Beside one block of the search and several.
  for (const int64_t count : {1, 7, 4096, 1000003}) {
    for (const Case& c : cases) {
      Values values(c.dtype, count);
      EXPECT_EQ(FindNonFinite(values.view()), -1) << Name(c.dtype) << " " << count;
      for (const uint32_t bits : c.bad) {
        Values bad = values;
        bad.Set(count - 1, bits);
        EXPECT_EQ(FindNonFinite(bad.view()), count - 1) << Name(c.dtype) << " " << count;
        bad.Set(count / 3, bits);
        EXPECT_EQ(FindNonFinite(bad.view()), count / 3) << Name(c.dtype) << " " << count;
      }
    }
  }
}

TEST(FindNonFiniteTest, AbsentAndEmptyTensorsHaveNone) {
  EXPECT_EQ(FindNonFinite(TensorView{}), -1);
  EXPECT_EQ(FindNonFinite(Values(DType::kBF16, 0).view()), -1);
}

}  // namespace
}  // namespace hgrn2
