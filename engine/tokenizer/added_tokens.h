// Added tokens (special ones and others): found in the text before anything else looks at it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/byte_trie.h"
#include "engine/tokenizer/normalizers.h"
#include "engine/tokenizer/vocabulary.h"

namespace hgrn2 {

struct AddedToken {
  std::string content;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for in the normalized text
  bool special = false;
};

// Immutable and thread-safe.
class AddedTokens {
 public:
  // Longer contents are refused: finding a token costs time proportional to its length.
  static constexpr size_t kMaxContentBytes = 1024;

  struct Entry {
    AddedToken token;
    std::string pattern;  // what is looked for, and what decoding gives: content, or normalized
    bool skipped_as_special = false;
  };
  struct Match {
    int32_t id;  // -1: text between tokens
    std::string_view text;
  };

  // Assigns ids as `tokenizers` does on loading: a content that is a token of the model has that
  // token's id, others follow the last id in order (the ids in the file are not looked at).
  static absl::StatusOr<AddedTokens> Create(std::vector<AddedToken> tokens,
                                            const Vocabulary& vocabulary,
                                            const Normalizer* normalizer, std::string_view file);

  // Cuts `text` at the tokens that are looked for before (normalized = false) or after the
  // normalizer has run.
  std::vector<Match> Find(std::string_view text, bool normalized) const;

  const absl::flat_hash_map<int32_t, Entry>& entries() const { return entries_; }
  int32_t IdOf(std::string_view content) const;

 private:
  absl::Status Add(AddedToken token, const Vocabulary& vocabulary, const Normalizer* normalizer);

  absl::flat_hash_map<int32_t, Entry> entries_;
  absl::flat_hash_map<std::string, int32_t> ids_;
  ByteTrie raw_, normalized_;
  int32_t max_id_ = -1;
};

}  // namespace hgrn2
