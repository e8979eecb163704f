#include "engine/loader/tensor_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <vector>

#include "engine/loader/parallel.h"

namespace hgrn2 {
namespace {

constexpr size_t kBlockBytes = 1 << 20;
constexpr int kLanes = 8;  // independent chains, to hide the multiplier's latency
constexpr uint64_t kMultiplier =
    0x9E3779B97F4A7C15ull;  // odd: each step is a bijection of the word

// splitmix64's finaliser.
uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

uint64_t Combine(uint64_t hash, uint64_t word) {
  return std::rotl((hash ^ Mix(word)) * kMultiplier, 29);
}

uint64_t Load(const uint8_t* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

uint64_t HashBlock(std::span<const uint8_t> bytes, uint64_t seed) {
  uint64_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = Mix(seed + i + 1);
  const uint8_t* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= kLanes * 8; left -= kLanes * 8, p += kLanes * 8) {
    for (int i = 0; i < kLanes; ++i) {
      lanes[i] = std::rotl((lanes[i] ^ Load(p + 8 * i)) * kMultiplier, 29);
    }
  }
  uint64_t hash = Mix(seed ^ bytes.size());
  for (const uint64_t lane : lanes) hash = Combine(hash, lane);
  for (; left >= 8; left -= 8, p += 8) hash = Combine(hash, Load(p));
  uint64_t tail = 0;
  for (size_t i = 0; i < left; ++i) tail |= static_cast<uint64_t>(p[i]) << (8 * i);
  return Mix(Combine(hash, tail));
}

uint64_t HashText(std::string_view text, uint64_t seed) {
  return HashBlock({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, seed);
}

}  // namespace

uint64_t HashBytes(std::span<const uint8_t> bytes, uint64_t seed) {
  const size_t num_blocks = std::max<size_t>(1, (bytes.size() + kBlockBytes - 1) / kBlockBytes);
  std::vector<uint64_t> hashes(num_blocks);
  ParallelFor(static_cast<int64_t>(num_blocks), [&](int64_t b) {
    const size_t begin = b * kBlockBytes;
    const size_t size = std::min(kBlockBytes, bytes.size() - begin);
    hashes[b] = HashBlock(bytes.subspan(begin, size), seed);
  });
  uint64_t hash = Mix(seed ^ bytes.size());
  for (const uint64_t block : hashes) hash = Combine(hash, block);
  return Mix(hash);
}

std::string HashModel(const ModelConfig& c, std::span<const TensorSlot> tensors) {
  uint64_t hash = HashText(
      fmt::format(
          "hgrn2 d={} L={} H={} K={} m={} vocab={} conv={} lb={} affine={} tie={} eps={:08x}",
          c.hidden_size, c.num_layers, c.num_heads, c.head_dim, c.intermediate_size, c.vocab_size,
          c.conv_size, c.use_lower_bound, c.elementwise_affine, c.tie_word_embeddings,
          std::bit_cast<uint32_t>(c.norm_eps)),
      0);
  for (const TensorSlot& slot : tensors) {
    const TensorView& tensor = *slot.view;
    const std::span<const uint8_t> bytes(static_cast<const uint8_t*>(tensor.data),
                                         tensor.size() * SizeOf(tensor.dtype));
    hash = Combine(hash, HashText(fmt::format("{} {} {}", slot.name, Name(tensor.dtype),
                                              fmt::join(tensor.shape, ",")),
                                  1));
    hash = Combine(hash, HashBytes(bytes, 2));
  }
  return fmt::format("{:016x}", Mix(hash));
}

}  // namespace hgrn2
