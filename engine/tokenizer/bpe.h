// Byte-pair encoding of one word, as the BPE model of `tokenizers` does it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/merge_table.h"
#include "engine/tokenizer/vocabulary.h"

namespace hgrn2 {

struct BpeOptions {
  std::string unk_token;  // "": characters that are not in the vocabulary are dropped
  bool has_unk_token = false;
  bool fuse_unk = false;
  bool byte_fallback = false;  // unknown characters become <0x..> tokens
  bool ignore_merges = false;  // a word that is a token stays whole
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
};

// Immutable and thread-safe (words seen before come from a cache of the calling thread).
class BpeModel {
 public:
  using Merges = std::vector<std::pair<std::string, std::string>>;

  // INVALID_ARGUMENT naming `file` if a merge needs a token that is not in the vocabulary.
  static absl::StatusOr<std::unique_ptr<BpeModel>> Create(Vocabulary vocabulary,
                                                          const Merges& merges, BpeOptions options,
                                                          std::string_view file);

  // Appends the ids of `word`. O(n log n) in its length.
  absl::Status Encode(std::string_view word, std::vector<int32_t>* ids) const;

  // The same for a word whose bytes have not been written in the byte-level alphabet yet.
  // REQUIRES: encodes_bytes().
  absl::Status EncodeBytes(std::string_view bytes, std::vector<int32_t>* ids) const;
  // Whether all 256 characters of the byte-level alphabet are tokens, so that nothing is unknown.
  bool encodes_bytes() const { return encodes_bytes_; }

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  BpeModel(Vocabulary vocabulary, size_t merges, BpeOptions options);
  absl::Status AddMerge(const std::pair<std::string, std::string>& merge, uint32_t rank,
                        std::string_view file);
  // The tokens of single characters, unknown ones handled as the options say.
  absl::Status Symbols(std::string_view word, std::vector<int32_t>* symbols) const;
  bool FallBack(std::string_view character, std::vector<int32_t>* symbols) const;
  void MergeAll(std::vector<int32_t>* symbols) const;
  void MergeShort(std::vector<int32_t>* symbols) const;
  void MergeLong(std::vector<int32_t>* symbols) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  BpeOptions options_;
  std::array<int32_t, 256> byte_ids_;      // tokens of the byte-level alphabet, or -1
  std::array<int32_t, 256> fallback_ids_;  // tokens <0x00>...<0xFF>, or -1
  bool encodes_bytes_ = false;
  int32_t unk_id_ = -1;
  uint64_t serial_;  // tells this model's words from another's in a thread's cache
};

}  // namespace hgrn2
