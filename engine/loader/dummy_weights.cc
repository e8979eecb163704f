#include "engine/loader/dummy_weights.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "engine/loader/float16.h"
#include "engine/loader/lower_bounds.h"
#include "engine/loader/parallel.h"
#include "engine/loader/tensor_hash.h"
#include "engine/loader/weight_names.h"

namespace hgrn2 {
namespace {

constexpr int64_t kChunkElements = 1 << 18;
constexpr int64_t kAlignment = 64;

// Zero pages until written, so nothing is touched twice.
class Arena {
 public:
  static std::shared_ptr<Arena> Allocate(size_t size) {
    void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) return nullptr;
    madvise(address, size, MADV_HUGEPAGE);  // a hint: page faults dominate otherwise
    return std::shared_ptr<Arena>(new Arena(address, size));
  }
  ~Arena() { munmap(address_, size_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  uint8_t* data() const { return static_cast<uint8_t*>(address_); }

 private:
  Arena(void* address, size_t size) : address_(address), size_(size) {}
  void* const address_;
  const size_t size_;
};

struct Distribution {
  float mean;
  float stddev;
};

// Scales that keep activations of order one through any depth, like those of a trained model.
Distribution DistributionOf(const TensorSlot& slot, bool tied) {
  const float fan_in = static_cast<float>(slot.shape.back());
  switch (slot.role) {
    case TensorRole::kNorm:
      return {1.0f, 0.1f};
    case TensorRole::kProjection:
      return {0.0f, 1.0f / std::sqrt(fan_in)};
    case TensorRole::kHead:
      return {0.0f, 2.0f / std::sqrt(fan_in)};
    // Tied embeddings are the head too; the first norm takes care of their scale as an input.
    case TensorRole::kEmbedding:
      return {0.0f, tied ? 2.0f / std::sqrt(fan_in) : 0.7f};
    case TensorRole::kConv:
      return {0.0f, 0.5f};
    case TensorRole::kLowerBounds:
      return {0.0f, 1.0f};
  }
  return {0.0f, 0.0f};
}

// splitmix64 as a counter-based generator.
uint64_t RandomBits(uint64_t key, uint64_t counter) {
  uint64_t z = key + 0x9E3779B97F4A7C15ull * (counter + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Nearly normal, mean 0 and variance 1: the sum of four 16-bit uniforms (Irwin-Hall). Integer up to
// one exact conversion and one product, so it is the same everywhere.
float NearlyNormal(uint64_t bits) {
  const int32_t sum = static_cast<int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                           (bits >> 32 & 0xffff) + (bits >> 48));
  constexpr float kScale = 2.6428996e-05f;  // 1 / sqrt(4 * (2^32 - 1) / 12)
  return static_cast<float>(sum - 2 * 0xffff) * kScale;
}

template <typename T, typename Convert>
void FillChunk(T* out, int64_t begin, int64_t end, uint64_t key, Distribution distribution,
               const Convert& convert) {
  for (int64_t i = begin; i < end; ++i) {
    out[i] = convert(distribution.mean + distribution.stddev * NearlyNormal(RandomBits(key, i)));
  }
}

void Fill(const TensorSlot& slot, uint64_t key, bool tied) {
  const Distribution distribution = DistributionOf(slot, tied);
  const int64_t size = slot.view->size();
  void* data = const_cast<void*>(slot.view->data);
  const DType dtype = slot.view->dtype;
  ParallelFor((size + kChunkElements - 1) / kChunkElements, [&](int64_t chunk) {
    const int64_t begin = chunk * kChunkElements;
    const int64_t end = std::min(size, begin + kChunkElements);
    if (dtype == DType::kF32) {
      FillChunk(static_cast<float*>(data), begin, end, key, distribution,
                [](float x) { return x; });
    } else if (dtype == DType::kBF16) {
      FillChunk(static_cast<uint16_t*>(data), begin, end, key, distribution, FloatToBFloat16);
    } else {
      FillChunk(static_cast<uint16_t*>(data), begin, end, key, distribution, FloatToFloat16);
    }
  });
}

int64_t Align(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

absl::StatusOr<ModelWeights> TryMakeDummyWeights(const ModelConfig& config, DType dtype,
                                                 uint64_t seed) {
  HGRN2_CHECK(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16, Name(dtype));
  ModelWeights weights;
  weights.config = config;
  TensorView raw_lower_bounds;
  const std::vector<TensorSlot> slots = TensorSlots(&weights, &raw_lower_bounds);

  int64_t total = 0;
  for (const TensorSlot& slot : slots) {
    *slot.view = {.data = nullptr, .dtype = dtype, .shape = slot.shape};
    total += Align(slot.view->size() * static_cast<int64_t>(SizeOf(dtype)));
  }
  const int64_t memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::shared_ptr<Arena> arena = total < memory ? Arena::Allocate(total) : nullptr;
  if (arena == nullptr) {
    return MakeStatus(absl::StatusCode::kResourceExhausted,
                      "dummy weights of {} parameters in {} need {} bytes, this machine has {}",
                      config.NumParameters(), Name(dtype), total, memory);
  }
  int64_t offset = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    slots[i].view->data = arena->data() + offset;
    offset += Align(slots[i].view->size() * static_cast<int64_t>(SizeOf(dtype)));
    Fill(slots[i], RandomBits(seed, i), config.tie_word_embeddings);
  }
  weights.lower_bounds = LowerBounds(config, raw_lower_bounds);
  if (config.tie_word_embeddings) weights.lm_head = weights.embeddings;
  weights.hash = HashModel(config, slots);
  weights.storage = std::move(arena);
  return weights;
}

ModelWeights MakeDummyWeights(const ModelConfig& config, DType dtype, uint64_t seed) {
  absl::StatusOr<ModelWeights> weights = TryMakeDummyWeights(config, dtype, seed);
  HGRN2_CHECK(weights.ok(), ToStd(weights.status().message()));
  return *std::move(weights);
}

}  // namespace hgrn2
