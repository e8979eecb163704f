// Any bytes as tokenizer.json: refused, or a tokenizer that works. The part before the first zero
// byte is the document, the rest is text to encode.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string_view text = zero == input.npos ? "the <s> sea " : input.substr(zero + 1);
  auto tokenizer = hgrn2::ParseTokenizerJson(input.substr(0, zero), "fuzz");
  // The same bytes as a SentencePiece model.
  if (!tokenizer.ok()) tokenizer = hgrn2::ParseSentencePieceModel(input, "fuzz", true, true);
  if (!tokenizer.ok()) return 0;
  const auto ids = (*tokenizer)->Encode(text, true);
  if (!ids.ok()) return 0;
  for (const bool skip : {false, true}) {
    hgrn2::IncrementalDetokenizer stream(**tokenizer, skip);
    std::string streamed;
    for (const int32_t id : *ids) {
      if (id < 0 || id >= (*tokenizer)->vocab_size()) std::abort();
      streamed += stream.Append(id);
    }
    streamed += stream.Flush();
    if (streamed != (*tokenizer)->Decode(*ids, skip)) std::abort();
    if (!hgrn2::unicode::IsValid(streamed)) std::abort();
  }
  return 0;
}
