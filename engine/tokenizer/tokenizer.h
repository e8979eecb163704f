// Text to token ids and back, exactly as the checkpoint's tokenizer.json (Hugging Face
// `tokenizers`, BPE models) or SentencePiece tokenizer.model does it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2 {

// One sequence being turned into text, token by token. The concatenation of everything appended to
// `out` is Decode of all ids. Single-threaded; the tokenizer outlives it.
class TokenStream {
 public:
  virtual ~TokenStream() = default;
  // Appends the text that is certain now, whole UTF-8 characters at a time.
  virtual void Append(int32_t id, std::string* out) = 0;
  // Appends what is left at the end of the sequence; the next Append starts another one.
  virtual void Flush(std::string* out) = 0;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Token ids of `text`. Special tokens that appear literally in the text become their ids, as in
  // `tokenizers`. add_special_tokens applies the post-processor's template (BOS and the like).
  // `text` must be valid UTF-8: INVALID_ARGUMENT otherwise.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      bool add_special_tokens) const = 0;

  // The text of `ids`, as `tokenizers`' decode gives it (U+FFFD for bytes that are not UTF-8).
  // Ids out of range are skipped.
  virtual std::string Decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const = 0;

  // A decoder for one sequence. The default joins TokenBytes and obeys StripsLeadingSpace.
  virtual std::unique_ptr<TokenStream> NewStream(bool skip_special_tokens) const;

  // The bytes that token `id` adds to a text in the middle of a sequence; "" if out of range.
  // Concatenating them (and dropping the decoder's leading-space rule) gives the text.
  virtual std::string_view TokenBytes(int32_t id) const = 0;

  virtual bool IsSpecial(int32_t id) const = 0;
  // Whether decoding drops one leading space of the very first token (Metaspace, SentencePiece).
  virtual bool StripsLeadingSpace() const = 0;
  // The id of a token by its exact content, or -1.
  virtual int32_t TokenToId(std::string_view token) const = 0;
  // Ids are in [0, vocab_size()); may be below the model's vocabulary, which can be padded.
  virtual int32_t vocab_size() const = 0;
};

// tokenizer.json if present, else tokenizer.model; nullptr if the directory has neither.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& directory);

// Entries for tests and fuzzers. `file` names the source in errors.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizerJson(std::string_view json,
                                                              std::string_view file);
// `add_bos`: add_special_tokens puts the model's BOS, if it has one, in front; `add_eos` likewise.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseSentencePieceModel(std::string_view model,
                                                                   std::string_view file,
                                                                   bool add_bos, bool add_eos);

// Turns a growing sequence of ids into text, whole UTF-8 characters at a time. The concatenation of
// everything returned equals Decode of all ids. Where a decoder's result depends on what follows (a
// run of byte-fallback tokens is text only if all of it is UTF-8), text waits until it is certain.
// Single-threaded.
class IncrementalDetokenizer {
 public:
  // REQUIRES: tokenizer outlives this.
  IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(&tokenizer),
        skip_special_tokens_(skip_special_tokens),
        stream_(tokenizer.NewStream(skip_special_tokens)) {}

  // Makes what follows the continuation of `prompt`: the rule for a text's first token does not
  // apply to it, it may complete a character that the prompt began, and text of the prompt that is
  // still held back is not returned. Costs the last few tokens only. REQUIRES: nothing appended
  // yet.
  void Prime(const std::vector<int32_t>& prompt);

  // Text completed by this token; "" while a character is incomplete.
  std::string Append(int32_t id);
  // What is left at the end of the sequence, incomplete bytes as U+FFFD. The next Append starts
  // another sequence.
  std::string Flush();

 private:
  // Drops the prompt's text from the front of `text`.
  void DropPrompt(std::string* text);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::unique_ptr<TokenStream> stream_;
  std::string held_;  // text of the prompt that the stream has yet to return
};

}  // namespace hgrn2
