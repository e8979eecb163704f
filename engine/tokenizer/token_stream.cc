// IncrementalDetokenizer, and the TokenStream of tokenizers that only know their tokens' bytes.
#include <algorithm>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8_stream.h"

namespace hgrn2 {
namespace {

class ByteStream : public TokenStream {
 public:
  ByteStream(const Tokenizer& tokenizer, bool skip) : tokenizer_(&tokenizer), skip_(skip) {}

  void Append(int32_t id, std::string* out) override {
    if (id < 0 || id >= tokenizer_->vocab_size()) return;
    if (skip_ && tokenizer_->IsSpecial(id)) return;
    std::string_view bytes = tokenizer_->TokenBytes(id);
    if (at_start_ && tokenizer_->StripsLeadingSpace() && !bytes.empty() && bytes[0] == ' ') {
      bytes.remove_prefix(1);
    }
    at_start_ = false;
    utf8_.Append(bytes, out);
  }
  void Flush(std::string* out) override {
    utf8_.Flush(out);
    at_start_ = true;
  }

 private:
  const Tokenizer* tokenizer_;
  bool skip_;
  bool at_start_ = true;
  Utf8Stream utf8_;
};

}  // namespace

std::unique_ptr<TokenStream> Tokenizer::NewStream(bool skip_special_tokens) const {
  return std::make_unique<ByteStream>(*this, skip_special_tokens);
}

void IncrementalDetokenizer::Prime(const std::vector<int32_t>& prompt) {
  // A character is at most four tokens. A run of byte tokens is decoded as a whole, so the context
  // must not begin inside one (within reason).
  constexpr size_t kContext = 8;
  constexpr size_t kMaxContext = 4096;
  size_t begin = prompt.size() - std::min(prompt.size(), kContext);
  while (begin > 0 && prompt.size() - begin < kMaxContext &&
         tokenizer_->TokenBytes(prompt[begin]).size() <= 1) {
    --begin;
  }
  // What the stream holds back now is what it would return if this were the end.
  const auto ended = tokenizer_->NewStream(skip_special_tokens_);
  std::string now;
  std::string at_end;
  for (size_t i = begin; i < prompt.size(); ++i) {
    stream_->Append(prompt[i], &now);
    ended->Append(prompt[i], &at_end);
  }
  ended->Flush(&at_end);
  held_ = at_end.substr(std::min(now.size(), at_end.size()));
  // U+FFFD at the end: a character that may yet be completed, and is then the continuation's.
  const std::string_view replacement = unicode::kReplacement;
  while (held_.size() >= replacement.size() &&
         std::string_view(held_).substr(held_.size() - replacement.size()) == replacement) {
    held_.resize(held_.size() - replacement.size());
  }
}

void IncrementalDetokenizer::DropPrompt(std::string* text) {
  if (held_.empty() || text->empty()) return;
  const auto [a, b] = std::mismatch(text->begin(), text->end(), held_.begin(), held_.end());
  const size_t common = static_cast<size_t>(a - text->begin());
  // A difference means that the continuation has changed how the prompt reads (a run of bytes
  // turned out not to be UTF-8): the rest is new.
  const bool differs = a != text->end() && b != held_.end();
  if (differs) {
    held_.clear();
    return;
  }
  text->erase(0, common);
  held_.erase(0, common);
}

std::string IncrementalDetokenizer::Append(int32_t id) {
  std::string out;
  stream_->Append(id, &out);
  DropPrompt(&out);
  return out;
}

std::string IncrementalDetokenizer::Flush() {
  std::string out;
  stream_->Flush(&out);
  DropPrompt(&out);
  held_.clear();
  return out;
}

}  // namespace hgrn2
