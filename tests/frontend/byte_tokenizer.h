// A tokenizer without a file: a token is a byte, plus one special end token.
#pragma once

#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace hgrn2::testing {

class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kEnd = 256;

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, bool) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
    return ids;
  }
  std::string Decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (!IsSpecial(id) || !skip_special_tokens) text += TokenBytes(id);
    }
    return text;
  }
  std::string_view TokenBytes(int32_t id) const override {
    if (id == kEnd) return "<end>";
    return id >= 0 && id < 256 ? std::string_view(&Table()[id], 1) : std::string_view();
  }
  bool IsSpecial(int32_t id) const override { return id == kEnd; }
  bool StripsLeadingSpace() const override { return false; }
  int32_t TokenToId(std::string_view token) const override {
    return token == "<end>" ? kEnd : token.size() == 1 ? static_cast<uint8_t>(token[0]) : -1;
  }
  int32_t vocab_size() const override { return 257; }

 private:
  static const std::string& Table() {
    static const std::string table = [] {
      std::string bytes;
      for (int b = 0; b < 256; ++b) bytes.push_back(static_cast<char>(b));
      return bytes;
    }();
    return table;
  }
};

}  // namespace hgrn2::testing
