// The decoders of tokenizer.json: tokens to text. Each one is a stage of a stream, so that text can
// be produced while tokens arrive; Decode runs the same stages over all tokens at once.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/regex.h"

namespace hgrn2 {

// Receives tokens' texts in order. A token may come in several fragments (the first with
// starts_token = true), each of whole UTF-8 characters.
class TextSink {
 public:
  virtual ~TextSink() = default;
  virtual void Push(std::string_view text, bool starts_token) = 0;
  virtual void Finish() = 0;  // no more tokens
};

// Immutable and thread-safe.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // A stage that hands its tokens to `next` (not owned, outlives the stage). `fragmented`: its
  // input is one token in many fragments.
  virtual std::unique_ptr<TextSink> Open(TextSink* next, bool fragmented) const = 0;
  // Whether the output is one token in fragments when the input is whole tokens.
  virtual bool fuses() const { return false; }
  // The bytes that a token in the middle of a text becomes.
  virtual std::string MiddleBytes(std::string bytes, bool fragmented) const = 0;
  // Whether one leading space (or its replacement) of a text's first token is dropped.
  virtual bool strips_leading_space(bool fragmented) const { return false; }
};

std::unique_ptr<Decoder> MakeByteLevelDecoder();
std::unique_ptr<Decoder> MakeByteFallbackDecoder();
std::unique_ptr<Decoder> MakeFuseDecoder();
// Drops up to `start` leading and `stop` trailing characters `content` (UTF-8) of each token.
std::unique_ptr<Decoder> MakeStripDecoder(std::string content, size_t start, size_t stop);
std::unique_ptr<Decoder> MakeReplaceDecoder(std::string literal, std::unique_ptr<Regex> regex,
                                            std::string replacement);
std::unique_ptr<Decoder> MakeMetaspaceDecoder(std::string replacement, bool drop_first);
std::unique_ptr<Decoder> MakeBpeDecoder(std::string suffix);
// What happens without a decoder: tokens joined by spaces.
std::unique_ptr<Decoder> MakeSpaceJoinDecoder();

// Decoders one after the other.
class DecoderChain {
 public:
  explicit DecoderChain(std::vector<std::unique_ptr<Decoder>> decoders)
      : decoders_(std::move(decoders)) {}

  // All stages, the first one in front, the last one writing to `sink`; empty if there is none.
  std::vector<std::unique_ptr<TextSink>> Open(TextSink* sink) const;
  std::string MiddleBytes(std::string_view token) const;
  bool StripsLeadingSpace() const;

 private:
  std::vector<std::unique_ptr<Decoder>> decoders_;
};

}  // namespace hgrn2
