// Strings to numbers, found as prefixes of a text.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace hgrn2 {

class ByteTrie {
 public:
  static constexpr uint32_t kRoot = 0;

  // False (changing nothing) if the key is there already. REQUIRES: !key.empty(), value >= 0.
  bool Insert(std::string_view key, int32_t value) {
    starts_[static_cast<unsigned char>(key[0])] = true;
    uint32_t node = kRoot;
    for (const char c : key) {
      const auto [it, added] =
          edges_.try_emplace(Edge(node, c), static_cast<uint32_t>(values_.size()));
      if (added) values_.push_back(-1);
      node = it->second;
    }
    if (values_[node] >= 0) return false;
    values_[node] = value;
    return true;
  }

  bool empty() const { return values_.size() == 1; }

  // The node that `c` leads to, or kRoot if there is none.
  uint32_t Step(uint32_t node, char c) const {
    if (node == kRoot && !starts_[static_cast<unsigned char>(c)]) return kRoot;
    const auto it = edges_.find(Edge(node, c));
    return it == edges_.end() ? kRoot : it->second;
  }
  // The value of the key that ends at `node`, or -1.
  int32_t Value(uint32_t node) const { return values_[node]; }

  // Bytes of the longest key at the start of `text`, or 0.
  size_t Longest(std::string_view text, int32_t* value) const {
    size_t longest = 0;
    uint32_t node = kRoot;
    for (size_t i = 0; i < text.size(); ++i) {
      node = Step(node, text[i]);
      if (node == kRoot) break;
      if (values_[node] < 0) continue;
      longest = i + 1;
      *value = values_[node];
    }
    return longest;
  }

 private:
  static uint64_t Edge(uint32_t node, char c) {
    return uint64_t{node} << 8 | static_cast<unsigned char>(c);
  }

  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::vector<int32_t> values_ = {-1};  // by node
  bool starts_[256] = {};
};

}  // namespace hgrn2
