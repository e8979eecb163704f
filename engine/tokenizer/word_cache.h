// Words seen before and their ids: a direct-mapped table of fixed size, one entry per cache line,
// for one thread. Natural text repeats its words, and a hit costs less than merging again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace hgrn2 {

class WordCache {
 public:
  static constexpr size_t kEntries = 8192;  // 512 KiB
  static constexpr size_t kMaxBytes = 30;
  static constexpr size_t kMaxIds = 8;

  // The calling thread's cache, emptied if another model used it last.
  static WordCache& ForModel(uint64_t serial) {
    static thread_local WordCache cache;
    if (cache.serial_ != serial) {
      cache.entries_ = std::make_unique<Entry[]>(kEntries);
      cache.serial_ = serial;
    }
    return cache;
  }

  static bool Fits(std::string_view word) { return !word.empty() && word.size() <= kMaxBytes; }

  // Appends the ids of `word` if they are known. REQUIRES: Fits(word).
  bool Find(std::string_view word, std::vector<int32_t>* ids) const {
    const Entry& e = entries_[Slot(word)];
    if (e.bytes != word.size() || std::memcmp(e.text, word.data(), word.size()) != 0) return false;
    ids->insert(ids->end(), e.ids, e.ids + e.count);
    return true;
  }

  // REQUIRES: Fits(word).
  void Insert(std::string_view word, const int32_t* ids, size_t count) {
    if (count > kMaxIds) return;
    Entry& e = entries_[Slot(word)];
    e.bytes = static_cast<uint8_t>(word.size());
    e.count = static_cast<uint8_t>(count);
    std::memcpy(e.text, word.data(), word.size());
    std::copy_n(ids, count, e.ids);
  }

 private:
  struct alignas(64) Entry {
    uint8_t bytes = 0;  // 0: empty
    uint8_t count = 0;
    char text[kMaxBytes];
    int32_t ids[kMaxIds];
  };
  static_assert(sizeof(Entry) == 64);

  static size_t Slot(std::string_view word) {
    return std::hash<std::string_view>()(word) % kEntries;
  }

  uint64_t serial_ = 0;
  std::unique_ptr<Entry[]> entries_;
};

}  // namespace hgrn2
