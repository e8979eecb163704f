// The default TokenStream, for tokenizers that only know their tokens' bytes.
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

}  // namespace hgrn2
