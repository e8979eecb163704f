// Pairs of token ids to the merge they make. Open addressing in one allocation: a lookup is the
// inner loop of byte-pair encoding.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hgrn2 {

struct Merge {
  uint32_t rank;  // lower merges first
  int32_t id;     // of the merged token
};

class MergeTable {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  explicit MergeTable(size_t expected)
      : slots_(std::bit_ceil(expected * 2 + 16)), shift_(64 - std::countr_zero(slots_.size())) {}

  // REQUIRES: at most `expected` distinct pairs. A pair given twice keeps the later merge.
  void Insert(int32_t left, int32_t right, Merge merge) {
    const uint64_t key = Key(left, right);
    size_t i = Home(key);
    while (slots_[i].merge.rank != kNoRank && slots_[i].key != key) i = (i + 1) & Mask();
    slots_[i] = {key, merge};
  }

  // Rank kNoRank if the pair does not merge.
  Merge Find(int32_t left, int32_t right) const {
    const uint64_t key = Key(left, right);
    for (size_t i = Home(key);; i = (i + 1) & Mask()) {
      if (slots_[i].key == key || slots_[i].merge.rank == kNoRank) return slots_[i].merge;
    }
  }

 private:
  struct Slot {
    uint64_t key = UINT64_MAX;  // no pair: ids are not negative
    Merge merge = {kNoRank, -1};
  };
  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t Home(uint64_t key) const { return (key * 0x9E3779B97F4A7C15ull) >> shift_; }
  size_t Mask() const { return slots_.size() - 1; }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace hgrn2
