// Tokens by id and ids by token.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/string_view.h"

namespace hgrn2 {

// Ids may have gaps; a gap is an empty, absent token.
class Vocabulary {
 public:
  // Ids above this are refused when a vocabulary is read: a gap costs about 100 bytes per id.
  static constexpr int64_t kMaxId = (int64_t{1} << 21) - 1;

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  // REQUIRES: 0 <= id <= kMaxId. False if the id or the token is there already.
  bool Insert(std::string token, int32_t id) {
    if (static_cast<size_t>(id) < present_.size() && present_[id]) return false;
    if (!ids_.try_emplace(token, id).second) return false;
    if (static_cast<size_t>(id) >= tokens_.size()) {
      tokens_.resize(id + 1);
      present_.resize(id + 1);
    }
    tokens_[id] = std::move(token);
    present_[id] = true;
    return true;
  }

  int32_t Find(std::string_view token) const {
    const auto it = ids_.find(ToAbsl(token));
    return it == ids_.end() ? -1 : it->second;
  }
  bool Has(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < present_.size() && present_[id];
  }
  // REQUIRES: Has(id).
  const std::string& Token(int32_t id) const { return tokens_[id]; }

  size_t size() const { return ids_.size(); }                           // tokens
  int32_t end() const { return static_cast<int32_t>(tokens_.size()); }  // highest id + 1

 private:
  absl::flat_hash_map<std::string, int32_t> ids_;
  std::vector<std::string> tokens_;
  std::vector<bool> present_;
};

}  // namespace hgrn2
