#include "engine/tokenizer/hf_tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {

// Positions within a word are 32-bit.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

class HfTokenizer::Stream : public TokenStream {
 public:
  Stream(const HfTokenizer& tokenizer, bool skip)
      : tokenizer_(&tokenizer), skip_(skip), stages_(tokenizer.parts_.decoder->Open(&sink_)) {}

  void Append(int32_t id, std::string* out) override {
    const auto& entries = tokenizer_->entries_;
    if (id < 0 || static_cast<size_t>(id) >= entries.size()) return;
    const Entry& entry = entries[id];
    if (!entry.present || (skip_ && entry.skipped)) return;
    sink_.out = out;
    Front()->Push(entry.text, true);
  }
  void Flush(std::string* out) override {
    sink_.out = out;
    Front()->Finish();
    stages_ = tokenizer_->parts_.decoder->Open(&sink_);
  }

 private:
  struct Sink : TextSink {
    void Push(std::string_view text, bool) override { *out += text; }
    void Finish() override {}
    std::string* out = nullptr;
  };
  TextSink* Front() { return stages_.empty() ? &sink_ : stages_.front().get(); }

  const HfTokenizer* tokenizer_;
  bool skip_;
  Sink sink_;
  std::vector<std::unique_ptr<TextSink>> stages_;
};

HfTokenizer::HfTokenizer(Parts parts) : parts_(std::move(parts)) {
  const Vocabulary& vocabulary = parts_.model->vocabulary();
  int32_t end = vocabulary.end();
  for (const auto& [id, added] : parts_.added.entries()) end = std::max(end, id + 1);
  entries_.resize(end);
  for (int32_t id = 0; id < vocabulary.end(); ++id) {
    if (!vocabulary.Has(id)) continue;
    entries_[id].present = true;
    entries_[id].text = vocabulary.Token(id);
  }
  for (const auto& [id, added] : parts_.added.entries()) {
    entries_[id].present = true;
    entries_[id].text = added.pattern;
    entries_[id].special = added.token.special;
    entries_[id].skipped = added.skipped_as_special;
  }
  for (Entry& entry : entries_) {
    if (entry.present) entry.bytes = parts_.decoder->MiddleBytes(entry.text);
  }
  bytes_ = parts_.model->encodes_bytes() && parts_.pre_tokenizer != nullptr &&
           parts_.pre_tokenizer->ends_in_byte_alphabet();
}

absl::Status HfTokenizer::CutSection(std::string_view section, bool at_origin,
                                     PieceList* list) const {
  if (parts_.normalizer != nullptr) {
    NormalizedText text{std::string(section), at_origin};
    RETURN_IF_ERROR(parts_.normalizer->Apply(&text));
    section = list->Keep(std::move(text.text));
    at_origin = text.at_origin;
  }
  const char* const begin = section.data();
  for (const AddedTokens::Match& m : parts_.added.Find(section, /*normalized=*/true)) {
    list->pieces.push_back({m.text, m.id, at_origin && m.text.data() == begin});
  }
  return absl::OkStatus();
}

absl::Status HfTokenizer::Cut(std::string_view text, PieceList* list) const {
  for (const AddedTokens::Match& m : parts_.added.Find(text, /*normalized=*/false)) {
    if (m.id >= 0) {
      list->pieces.push_back({m.text, m.id, false});
    } else {
      RETURN_IF_ERROR(CutSection(m.text, m.text.data() == text.data(), list));
    }
  }
  if (parts_.pre_tokenizer == nullptr) return absl::OkStatus();
  return bytes_ ? parts_.pre_tokenizer->ApplyRaw(list) : parts_.pre_tokenizer->Apply(list);
}

absl::StatusOr<std::vector<int32_t>> HfTokenizer::Encode(std::string_view text,
                                                         bool add_special_tokens) const {
  if (text.size() > kMaxTextBytes) {
    return InvalidArgument("text", "has {} bytes; the limit is {}", text.size(), kMaxTextBytes);
  }
  if (const size_t valid = unicode::ValidPrefix(text); valid != text.size()) {
    return InvalidArgument("text", "is not valid UTF-8 at byte {}", valid);
  }
  PieceList list;
  RETURN_IF_ERROR(Cut(text, &list));
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  for (const Piece& piece : list.pieces) {
    if (piece.token >= 0) {
      ids.push_back(piece.token);
    } else if (bytes_) {
      RETURN_IF_ERROR(parts_.model->EncodeBytes(piece.text, &ids));
    } else {
      RETURN_IF_ERROR(parts_.model->Encode(piece.text, &ids));
    }
  }
  return parts_.post_processor.Apply(std::move(ids), add_special_tokens);
}

std::string HfTokenizer::Decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const {
  std::string out;
  Stream stream(*this, skip_special_tokens);
  for (const int32_t id : ids) stream.Append(id, &out);
  stream.Flush(&out);
  return out;
}

std::unique_ptr<TokenStream> HfTokenizer::NewStream(bool skip_special_tokens) const {
  return std::make_unique<Stream>(*this, skip_special_tokens);
}

std::string_view HfTokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  return entries_[id].bytes;
}

bool HfTokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < vocab_size() && entries_[id].special;
}

int32_t HfTokenizer::TokenToId(std::string_view token) const {
  const int32_t id = parts_.added.IdOf(token);
  return id >= 0 ? id : parts_.model->vocabulary().Find(token);
}

}  // namespace hgrn2
