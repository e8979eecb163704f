// SentencePiece's normalizer: character rules from a precompiled map, white space, dummy prefix.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/tokenizer/sentencepiece_model.h"

namespace hgrn2 {

// Immutable and thread-safe.
class SentencePieceNormalizer {
 public:
  // REQUIRES: model outlives this. INVALID_ARGUMENT naming `file` if the map is malformed.
  static absl::StatusOr<SentencePieceNormalizer> Create(const SentencePieceModel& model,
                                                        std::string_view file);

  // REQUIRES: valid UTF-8.
  std::string Normalize(std::string_view text) const;

 private:
  explicit SentencePieceNormalizer(const SentencePieceModel& model) : model_(&model) {}
  struct Rule {
    std::string_view text;  // what the prefix becomes
    size_t consumed = 0;    // bytes of the prefix
  };
  Rule Prefix(std::string_view input) const;
  // Bytes of the longest rule at the start of `input` (0: none) and where its result is.
  size_t LongestRule(std::string_view input, size_t* result) const;
  uint32_t Unit(size_t index) const;

  const SentencePieceModel* model_;
  std::string_view trie_;     // a double array of little-endian 32-bit units
  std::string_view results_;  // zero-terminated strings
};

}  // namespace hgrn2
