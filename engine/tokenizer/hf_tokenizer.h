// tokenizer.json with a BPE model, exactly as Hugging Face `tokenizers` runs it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/decoders.h"
#include "engine/tokenizer/normalizers.h"
#include "engine/tokenizer/post_processor.h"
#include "engine/tokenizer/pre_tokenizers.h"
#include "engine/tokenizer/tokenizer.h"

namespace hgrn2 {

class HfTokenizer : public Tokenizer {
 public:
  struct Parts {
    std::unique_ptr<Normalizer> normalizer;       // may be null
    std::unique_ptr<PreTokenizer> pre_tokenizer;  // may be null
    std::unique_ptr<BpeModel> model;
    AddedTokens added;
    PostProcessor post_processor;
    std::unique_ptr<DecoderChain> decoder;
  };

  explicit HfTokenizer(Parts parts);

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override;
  std::string Decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const override;
  std::unique_ptr<TokenStream> NewStream(bool skip_special_tokens) const override;
  std::string_view TokenBytes(int32_t id) const override;
  bool IsSpecial(int32_t id) const override;
  bool StripsLeadingSpace() const override { return parts_.decoder->StripsLeadingSpace(); }
  int32_t TokenToId(std::string_view token) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(entries_.size()); }

 private:
  class Stream;
  struct Entry {
    std::string text;   // what the decoder is given
    std::string bytes;  // what it becomes in the middle of a text
    bool present = false;
    bool special = false;
    bool skipped = false;
  };
  absl::Status Cut(std::string_view text, PieceList* list) const;
  absl::Status CutSection(std::string_view section, bool at_origin, PieceList* list) const;

  Parts parts_;
  bool bytes_ = false;  // the model works on bytes, not on the byte-level alphabet
  std::vector<Entry> entries_;
};

}  // namespace hgrn2
