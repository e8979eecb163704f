// Segmentation of normalized text into pieces: byte-pair merging by score, or the unigram model's
// most likely path.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/tokenizer/byte_trie.h"
#include "engine/tokenizer/sentencepiece_model.h"

namespace hgrn2 {

// Immutable and thread-safe.
class SentencePieceEncoder {
 public:
  struct Part {
    int32_t id;
    std::string_view text;
  };

  // REQUIRES: model outlives this.
  explicit SentencePieceEncoder(const SentencePieceModel& model);

  // Pieces in order; unknown text has the unknown piece's id, one part per character.
  std::vector<Part> Encode(std::string_view normalized) const;

 private:
  std::vector<Part> EncodeBpe(std::string_view text) const;
  std::vector<Part> EncodeUnigram(std::string_view text) const;

  const SentencePieceModel* model_;
  ByteTrie trie_;  // unigram
  float min_score_, max_score_;
};

}  // namespace hgrn2
