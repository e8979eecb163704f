// SentencePiece's tokenizer.model as a Tokenizer, equal to the Python package `sentencepiece`.
#include <utility>

#include "base/status.h"
#include "engine/tokenizer/sentencepiece_encoder.h"
#include "engine/tokenizer/sentencepiece_model.h"
#include "engine/tokenizer/sentencepiece_normalizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 28;

using PieceType = SentencePieceModel::PieceType;

std::string ReplaceSpaceSymbols(std::string_view piece) {
  std::string out;
  size_t done = 0;
  for (size_t at = piece.find(kSpaceSymbol); at != piece.npos;
       at = piece.find(kSpaceSymbol, done)) {
    out += piece.substr(done, at - done);
    out += ' ';
    done = at + kSpaceSymbol.size();
  }
  out += piece.substr(done);
  return out;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<SentencePieceModel> model,
                         SentencePieceNormalizer normalizer, bool add_bos, bool add_eos)
      : model_(std::move(model)), normalizer_(std::move(normalizer)), encoder_(*model_) {
    if (add_bos) bos_id_ = ControlId(model_->bos_piece);
    if (add_eos) eos_id_ = ControlId(model_->eos_piece);
    for (const auto& piece : model_->pieces) bytes_.push_back(MiddleBytes(piece));
    for (int b = 0; b < 256; ++b) {
      if (model_->byte_ids[b] >= 0) bytes_[model_->byte_ids[b]] = static_cast<char>(b);
    }
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override {
    if (text.size() > kMaxTextBytes) {
      return InvalidArgument("text", "has {} bytes; the limit is {}", text.size(), kMaxTextBytes);
    }
    if (const size_t valid = unicode::ValidPrefix(text); valid != text.size()) {
      return InvalidArgument("text", "is not valid UTF-8 at byte {}", valid);
    }
    const std::string normalized = normalizer_.Normalize(text);
    std::vector<int32_t> ids;
    if (add_special_tokens && bos_id_ >= 0) ids.push_back(bos_id_);
    bool after_unknown = false;
    for (const auto& part : encoder_.Encode(normalized)) {
      const bool unknown = part.id == model_->unk_id;
      if (unknown && model_->byte_fallback) {
        for (const char b : part.text) {
          ids.push_back(model_->byte_ids[static_cast<unsigned char>(b)]);
        }
      } else if (!(unknown && after_unknown)) {  // a run of unknown text is one token
        ids.push_back(part.id);
      }
      after_unknown = unknown;
    }
    if (add_special_tokens && eos_id_ >= 0) ids.push_back(eos_id_);
    return ids;
  }

  std::string Decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const override {
    std::string out;
    Stream stream(*this);
    for (const int32_t id : ids) stream.Append(id, &out);
    stream.Flush(&out);
    return out;
  }

  // Control pieces are invisible either way, as in `sentencepiece`.
  std::unique_ptr<TokenStream> NewStream(bool skip_special_tokens) const override {
    return std::make_unique<Stream>(*this);
  }

  std::string_view TokenBytes(int32_t id) const override {
    return Has(id) ? std::string_view(bytes_[id]) : "";
  }
  bool IsSpecial(int32_t id) const override {
    return Has(id) && model_->TypeOf(id) == PieceType::kControl;
  }
  bool StripsLeadingSpace() const override {
    return model_->normalizer.add_dummy_prefix || model_->normalizer.remove_extra_whitespaces;
  }
  int32_t TokenToId(std::string_view token) const override {
    const int32_t id = model_->PieceToId(token);
    return model_->pieces[id].text == token ? id : -1;
  }
  int32_t vocab_size() const override { return static_cast<int32_t>(model_->pieces.size()); }

 private:
  class Stream : public TokenStream {
   public:
    explicit Stream(const SentencePieceTokenizer& tokenizer) : tokenizer_(&tokenizer) {}
    void Append(int32_t id, std::string* out) override;
    void Flush(std::string* out) override;

   private:
    void Emit(std::string_view text, std::string* out);
    void EmitBytes(bool all, std::string* out);

    const SentencePieceTokenizer* tokenizer_;
    std::string pending_;    // byte pieces that are not a character yet
    bool any_text_ = false;  // whether anything was emitted
    bool at_start_ = true;   // a leading space may still be dropped
    bool dropped_ = false;   // the piece before dropped the one space that is dropped
  };

  bool Has(int32_t id) const { return id >= 0 && id < vocab_size(); }
  int32_t ControlId(std::string_view piece) const {
    const int32_t id = model_->PieceToId(piece);
    return model_->TypeOf(id) == PieceType::kControl ? id : -1;
  }
  std::string MiddleBytes(const SentencePieceModel::Piece& piece) const {
    if (piece.type == PieceType::kControl) return "";
    if (piece.type == PieceType::kUnknown) return model_->unk_surface;
    return ReplaceSpaceSymbols(piece.text);
  }

  std::unique_ptr<SentencePieceModel> model_;  // at a stable address
  SentencePieceNormalizer normalizer_;
  SentencePieceEncoder encoder_;
  int32_t bos_id_ = -1, eos_id_ = -1;
  std::vector<std::string> bytes_;
};

void SentencePieceTokenizer::Stream::Emit(std::string_view text, std::string* out) {
  any_text_ = any_text_ || !text.empty();
  *out += text;
}

// Bytes that are no character become U+FFFD one by one. `all`: no more will come.
void SentencePieceTokenizer::Stream::EmitBytes(bool all, std::string* out) {
  size_t pos = 0;
  while (pos < pending_.size()) {
    const unicode::Unit unit = unicode::FirstUnit(std::string_view(pending_).substr(pos));
    if (unit.size == 0 && !all) break;
    if (unit.size > 0 && unit.valid) {
      Emit(std::string_view(pending_).substr(pos, unit.size), out);
      pos += unit.size;
    } else {
      Emit(unicode::kReplacement, out);
      ++pos;
    }
  }
  pending_.erase(0, pos);
}

void SentencePieceTokenizer::Stream::Append(int32_t id, std::string* out) {
  if (!tokenizer_->Has(id)) return;
  const SentencePieceModel& model = *tokenizer_->model_;
  const PieceType type = model.TypeOf(id);
  if (type == PieceType::kByte) {
    pending_ += tokenizer_->bytes_[id];
    EmitBytes(/*all=*/false, out);
    return;
  }
  EmitBytes(/*all=*/true, out);
  if (dropped_ || any_text_) at_start_ = false;
  dropped_ = false;
  if (type == PieceType::kControl || type == PieceType::kUnknown) {
    Emit(tokenizer_->bytes_[id], out);
    return;
  }
  std::string_view text = tokenizer_->bytes_[id];
  // The piece must start with the symbol itself; a literal space stays.
  const bool starts_with_symbol = model.pieces[id].text.rfind(kSpaceSymbol, 0) == 0;
  if (at_start_ && starts_with_symbol && tokenizer_->StripsLeadingSpace()) {
    text.remove_prefix(1);
    // Where extra white space was removed, leading spaces of further pieces go, too.
    dropped_ = !model.normalizer.remove_extra_whitespaces;
  }
  Emit(text, out);
}

void SentencePieceTokenizer::Stream::Flush(std::string* out) {
  EmitBytes(/*all=*/true, out);
  *this = Stream(*tokenizer_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseSentencePieceModel(std::string_view model,
                                                                   std::string_view file,
                                                                   bool add_bos, bool add_eos) {
  ASSIGN_OR_RETURN(SentencePieceModel parsed, SentencePieceModel::Parse(model, file));
  auto owned = std::make_unique<SentencePieceModel>(std::move(parsed));
  ASSIGN_OR_RETURN(SentencePieceNormalizer normalizer,
                   SentencePieceNormalizer::Create(*owned, file));
  return std::make_unique<SentencePieceTokenizer>(std::move(owned), std::move(normalizer), add_bos,
                                                  add_eos);
}

}  // namespace hgrn2
