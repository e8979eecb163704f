#include "engine/loader/finite.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "engine/loader/parallel.h"

namespace hgrn2 {
namespace {

constexpr int64_t kBlock = 1 << 18;  // elements
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// The first element of [begin, end) whose exponent bits are all set. Written so that compilers
// vectorise it: a branch per chunk, none per element.
template <typename Bits>
int64_t FindIn(const void* data, int64_t begin, int64_t end, Bits exponent) {
  constexpr int64_t kChunk = 4096;
  const auto* const bytes = static_cast<const char*>(data);
  const auto found = [&](int64_t i) {
    Bits bits;  // files promise no alignment
    std::memcpy(&bits, bytes + i * static_cast<int64_t>(sizeof(bits)), sizeof(bits));
    return (bits & exponent) == exponent;
  };
  for (int64_t chunk = begin; chunk < end; chunk += kChunk) {
    const int64_t chunk_end = std::min(end, chunk + kChunk);
    Bits any = 0;
    for (int64_t i = chunk; i < chunk_end; ++i) any |= static_cast<Bits>(found(i));
    if (any == 0) continue;
    for (int64_t i = chunk; i < chunk_end; ++i) {
      if (found(i)) return i;
    }
  }
  return kNone;
}

}  // namespace

int64_t FindNonFinite(const TensorView& tensor) {
  const int64_t size = tensor.data == nullptr ? 0 : tensor.size();
  std::atomic<int64_t> first{kNone};
  ParallelFor((size + kBlock - 1) / kBlock, [&](int64_t block) {
    const int64_t begin = block * kBlock;
    if (begin > first.load(std::memory_order_relaxed)) return;
    const int64_t end = std::min(size, begin + kBlock);
    int64_t at = kNone;
    if (tensor.dtype == DType::kF32) {
      at = FindIn<uint32_t>(tensor.data, begin, end, 0x7F800000u);
    } else if (tensor.dtype == DType::kBF16) {
      at = FindIn<uint16_t>(tensor.data, begin, end, 0x7F80);
    } else {
      at = FindIn<uint16_t>(tensor.data, begin, end, 0x7C00);
    }
    int64_t known = first.load(std::memory_order_relaxed);
    while (at < known && !first.compare_exchange_weak(known, at)) {
    }
  });
  return first == kNone ? -1 : first.load();
}

}  // namespace hgrn2
