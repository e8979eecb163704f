#include "engine/tokenizer/decoders.h"

#include <utility>

#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/utf8_stream.h"

namespace hgrn2 {
namespace {

// A stage whose result depends on a whole token, given one in fragments: waits for the end.
class WaitForEnd : public TextSink {
 public:
  explicit WaitForEnd(std::unique_ptr<TextSink> stage) : stage_(std::move(stage)) {}
  void Push(std::string_view text, bool starts_token) override {
    any_ = true;
    text_ += text;
  }
  void Finish() override {
    if (any_) stage_->Push(text_, true);
    stage_->Finish();
  }

 private:
  std::unique_ptr<TextSink> stage_;
  std::string text_;
  bool any_ = false;
};

std::unique_ptr<TextSink> WholeTokens(std::unique_ptr<TextSink> stage, bool fragmented) {
  if (!fragmented) return stage;
  return std::make_unique<WaitForEnd>(std::move(stage));
}

class ByteLevelDecoder : public Decoder {
 public:
  std::unique_ptr<TextSink> Open(TextSink* next, bool fragmented) const override {
    return WholeTokens(std::make_unique<Stage>(next), fragmented);
  }
  bool fuses() const override { return true; }
  std::string MiddleBytes(std::string bytes, bool) const override {
    std::string out;
    return unicode::IsValid(bytes) && AlphabetToBytes(bytes, &out) ? out : bytes;
  }

 private:
  class Stage : public TextSink {
   public:
    explicit Stage(TextSink* next) : next_(next) {}
    void Push(std::string_view text, bool) override {
      bytes_.clear();
      // A token with a foreign character (an added token) is taken literally.
      if (!AlphabetToBytes(text, &bytes_)) bytes_ = text;
      out_.clear();
      utf8_.Append(bytes_, &out_);
      next_->Push(out_, std::exchange(first_, false));
    }
    void Finish() override {
      out_.clear();
      utf8_.Flush(&out_);
      if (!out_.empty()) next_->Push(out_, first_);
      next_->Finish();
    }

   private:
    TextSink* next_;
    Utf8Stream utf8_;
    bool first_ = true;
    std::string bytes_, out_;
  };
};

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte that a token <0xHH> stands for, or -1.
int FallbackByte(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return -1;
  // Rust parses the two characters as a number, which may have a plus sign.
  const int high = token[3] == '+' ? 0 : HexDigit(token[3]);
  const int low = HexDigit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

class ByteFallbackDecoder : public Decoder {
 public:
  std::unique_ptr<TextSink> Open(TextSink* next, bool fragmented) const override {
    return WholeTokens(std::make_unique<Stage>(next), fragmented);
  }
  std::string MiddleBytes(std::string bytes, bool) const override {
    const int byte = FallbackByte(bytes);
    return byte < 0 ? bytes : std::string(1, static_cast<char>(byte));
  }

 private:
  // A run of byte tokens is text if all of it is UTF-8, else every byte is U+FFFD. So nothing of a
  // run can be said before its end.
  class Stage : public TextSink {
   public:
    explicit Stage(TextSink* next) : next_(next) {}
    void Push(std::string_view text, bool) override {
      const int byte = FallbackByte(text);
      if (byte >= 0) {
        run_.push_back(static_cast<char>(byte));
        return;
      }
      EndRun();
      next_->Push(text, true);
    }
    void Finish() override {
      EndRun();
      next_->Finish();
    }

   private:
    void EndRun() {
      if (run_.empty()) return;
      if (unicode::IsValid(run_)) {
        next_->Push(run_, true);
      } else {
        for (size_t i = 0; i < run_.size(); ++i) next_->Push(unicode::kReplacement, true);
      }
      run_.clear();
    }

    TextSink* next_;
    std::string run_;
  };
};

class FuseDecoder : public Decoder {
 public:
  std::unique_ptr<TextSink> Open(TextSink* next, bool) const override {
    return std::make_unique<Stage>(next);
  }
  bool fuses() const override { return true; }
  std::string MiddleBytes(std::string bytes, bool) const override { return bytes; }

 private:
  class Stage : public TextSink {
   public:
    explicit Stage(TextSink* next) : next_(next) {}
    void Push(std::string_view text, bool) override {
      next_->Push(text, std::exchange(first_, false));
    }
    void Finish() override { next_->Finish(); }

   private:
    TextSink* next_;
    bool first_ = true;
  };
};

class StripDecoder : public Decoder {
 public:
  StripDecoder(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}

  std::unique_ptr<TextSink> Open(TextSink* next, bool fragmented) const override {
    if (fragmented && stop_ == 0) return std::make_unique<LeadingStage>(this, next);
    return WholeTokens(std::make_unique<Stage>(this, next), fragmented);
  }
  std::string MiddleBytes(std::string bytes, bool fragmented) const override {
    return fragmented ? bytes : std::string(Strip(bytes));
  }
  bool strips_leading_space(bool fragmented) const override {
    return fragmented && start_ > 0 && content_ == " ";
  }

 private:
  // Drops at most `limit` leading characters; returns how many.
  size_t StripStart(std::string_view* text, size_t limit) const {
    size_t n = 0;
    while (n < limit && text->substr(0, content_.size()) == content_) {
      text->remove_prefix(content_.size());
      ++n;
    }
    return n;
  }
  std::string_view Strip(std::string_view text) const {
    StripStart(&text, start_);
    for (size_t n = 0; n < stop_ && text.size() >= content_.size() &&
                       text.substr(text.size() - content_.size()) == content_;
         ++n) {
      text.remove_suffix(content_.size());
    }
    return text;
  }

  class Stage : public TextSink {
   public:
    Stage(const StripDecoder* decoder, TextSink* next) : decoder_(decoder), next_(next) {}
    void Push(std::string_view text, bool) override { next_->Push(decoder_->Strip(text), true); }
    void Finish() override { next_->Finish(); }

   private:
    const StripDecoder* decoder_;
    TextSink* next_;
  };

  class LeadingStage : public TextSink {
   public:
    LeadingStage(const StripDecoder* decoder, TextSink* next)
        : decoder_(decoder), next_(next), left_(decoder->start_) {}
    void Push(std::string_view text, bool starts_token) override {
      left_ -= decoder_->StripStart(&text, left_);
      if (!text.empty()) left_ = 0;
      next_->Push(text, starts_token);
    }
    void Finish() override { next_->Finish(); }

   private:
    const StripDecoder* decoder_;
    TextSink* next_;
    size_t left_;
  };

  std::string content_;
  size_t start_, stop_;
};

class ReplaceDecoder : public Decoder {
 public:
  ReplaceDecoder(std::string literal, std::unique_ptr<Regex> regex, std::string replacement)
      : literal_(std::move(literal)),
        regex_(std::move(regex)),
        replacement_(std::move(replacement)) {}

  std::unique_ptr<TextSink> Open(TextSink* next, bool fragmented) const override {
    if (fragmented && regex_ == nullptr) return std::make_unique<StreamStage>(this, next);
    return WholeTokens(std::make_unique<Stage>(this, next), fragmented);
  }
  std::string MiddleBytes(std::string bytes, bool) const override {
    return unicode::IsValid(bytes) ? Replace(bytes) : bytes;
  }

 private:
  std::string Replace(std::string_view text) const {
    std::vector<Segment> segments;
    if (regex_ == nullptr) {
      FindSegments(text, literal_, &segments);
    } else if (!regex_->Segments(text, &segments).ok()) {
      return std::string(text);  // too much backtracking; decoding has no way to fail
    }
    return ReplaceSegments(text, segments, replacement_);
  }

  class Stage : public TextSink {
   public:
    Stage(const ReplaceDecoder* decoder, TextSink* next) : decoder_(decoder), next_(next) {}
    void Push(std::string_view text, bool) override { next_->Push(decoder_->Replace(text), true); }
    void Finish() override { next_->Finish(); }

   private:
    const ReplaceDecoder* decoder_;
    TextSink* next_;
  };

  // Holds back only what may be the beginning of a match.
  class StreamStage : public TextSink {
   public:
    StreamStage(const ReplaceDecoder* decoder, TextSink* next) : decoder_(decoder), next_(next) {}
    void Push(std::string_view text, bool starts_token) override {
      const std::string_view literal = decoder_->literal_;
      held_ += text;
      std::string out;
      size_t done = 0;
      for (size_t at = held_.find(literal); at != held_.npos; at = held_.find(literal, done)) {
        out.append(held_, done, at - done);
        out += decoder_->replacement_;
        done = at + literal.size();
      }
      size_t keep = done;
      if (held_.size() - done >= literal.size()) keep = held_.size() - literal.size() + 1;
      while (literal.substr(0, held_.size() - keep) != std::string_view(held_).substr(keep)) ++keep;
      out.append(held_, done, keep - done);
      held_.erase(0, keep);
      next_->Push(out, starts_token);
    }
    void Finish() override {
      if (!held_.empty()) next_->Push(held_, false);
      next_->Finish();
    }

   private:
    const ReplaceDecoder* decoder_;
    TextSink* next_;
    std::string held_;
  };

  std::string literal_;
  std::unique_ptr<Regex> regex_;
  std::string replacement_;
};

class MetaspaceDecoder : public Decoder {
 public:
  MetaspaceDecoder(std::string replacement, bool drop_first)
      : replacement_(std::move(replacement)), drop_first_(drop_first) {}

  std::unique_ptr<TextSink> Open(TextSink* next, bool) const override {
    return std::make_unique<Stage>(this, next);
  }
  std::string MiddleBytes(std::string bytes, bool) const override { return Replace(bytes, " "); }
  bool strips_leading_space(bool) const override { return drop_first_; }

 private:
  std::string Replace(std::string_view text, std::string_view by) const {
    std::vector<Segment> segments;
    FindSegments(text, replacement_, &segments);
    return ReplaceSegments(text, segments, by);
  }

  class Stage : public TextSink {
   public:
    Stage(const MetaspaceDecoder* decoder, TextSink* next) : decoder_(decoder), next_(next) {}
    void Push(std::string_view text, bool starts_token) override {
      if (starts_token) ++token_;
      // `tokenizers` drops every replacement character of the first token.
      const bool drop = decoder_->drop_first_ && token_ <= 1;
      next_->Push(decoder_->Replace(text, drop ? "" : " "), starts_token);
    }
    void Finish() override { next_->Finish(); }

   private:
    const MetaspaceDecoder* decoder_;
    TextSink* next_;
    size_t token_ = 0;
  };

  std::string replacement_;
  bool drop_first_;
};

class BpeDecoder : public Decoder {
 public:
  explicit BpeDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  std::unique_ptr<TextSink> Open(TextSink* next, bool fragmented) const override {
    return WholeTokens(std::make_unique<Stage>(this, next), fragmented);
  }
  std::string MiddleBytes(std::string bytes, bool) const override { return Replace(bytes, " "); }

 private:
  std::string Replace(std::string_view text, std::string_view by) const {
    std::vector<Segment> segments;
    FindSegments(text, suffix_, &segments);
    return ReplaceSegments(text, segments, by);
  }

  // The suffix is a space except on the last token, so one token is always held back.
  class Stage : public TextSink {
   public:
    Stage(const BpeDecoder* decoder, TextSink* next) : decoder_(decoder), next_(next) {}
    void Push(std::string_view text, bool) override {
      if (any_) next_->Push(decoder_->Replace(held_, " "), true);
      held_ = text;
      any_ = true;
    }
    void Finish() override {
      if (any_) next_->Push(decoder_->Replace(held_, ""), true);
      next_->Finish();
    }

   private:
    const BpeDecoder* decoder_;
    TextSink* next_;
    std::string held_;
    bool any_ = false;
  };

  std::string suffix_;
};

class SpaceJoinDecoder : public Decoder {
 public:
  std::unique_ptr<TextSink> Open(TextSink* next, bool) const override {
    return std::make_unique<Stage>(next);
  }
  std::string MiddleBytes(std::string bytes, bool) const override { return " " + bytes; }
  bool strips_leading_space(bool) const override { return true; }

 private:
  class Stage : public TextSink {
   public:
    explicit Stage(TextSink* next) : next_(next) {}
    void Push(std::string_view text, bool) override {
      if (!std::exchange(first_, false)) next_->Push(" ", false);
      next_->Push(text, true);
    }
    void Finish() override { next_->Finish(); }

   private:
    TextSink* next_;
    bool first_ = true;
  };
};

}  // namespace

std::unique_ptr<Decoder> MakeByteLevelDecoder() { return std::make_unique<ByteLevelDecoder>(); }
std::unique_ptr<Decoder> MakeByteFallbackDecoder() {
  return std::make_unique<ByteFallbackDecoder>();
}
std::unique_ptr<Decoder> MakeFuseDecoder() { return std::make_unique<FuseDecoder>(); }
std::unique_ptr<Decoder> MakeStripDecoder(std::string content, size_t start, size_t stop) {
  return std::make_unique<StripDecoder>(std::move(content), start, stop);
}
std::unique_ptr<Decoder> MakeReplaceDecoder(std::string literal, std::unique_ptr<Regex> regex,
                                            std::string replacement) {
  return std::make_unique<ReplaceDecoder>(std::move(literal), std::move(regex),
                                          std::move(replacement));
}
std::unique_ptr<Decoder> MakeMetaspaceDecoder(std::string replacement, bool drop_first) {
  return std::make_unique<MetaspaceDecoder>(std::move(replacement), drop_first);
}
std::unique_ptr<Decoder> MakeBpeDecoder(std::string suffix) {
  return std::make_unique<BpeDecoder>(std::move(suffix));
}
std::unique_ptr<Decoder> MakeSpaceJoinDecoder() { return std::make_unique<SpaceJoinDecoder>(); }

std::vector<std::unique_ptr<TextSink>> DecoderChain::Open(TextSink* sink) const {
  std::vector<bool> fragmented(decoders_.size() + 1, false);
  for (size_t i = 0; i < decoders_.size(); ++i) {
    fragmented[i + 1] = fragmented[i] || decoders_[i]->fuses();
  }
  std::vector<std::unique_ptr<TextSink>> stages(decoders_.size());
  for (size_t i = decoders_.size(); i-- > 0;) {
    TextSink* const next = i + 1 < stages.size() ? stages[i + 1].get() : sink;
    stages[i] = decoders_[i]->Open(next, fragmented[i]);
  }
  return stages;
}

std::string DecoderChain::MiddleBytes(std::string_view token) const {
  std::string bytes(token);
  bool fragmented = false;
  for (const auto& decoder : decoders_) {
    bytes = decoder->MiddleBytes(std::move(bytes), fragmented);
    fragmented = fragmented || decoder->fuses();
  }
  return bytes;
}

bool DecoderChain::StripsLeadingSpace() const {
  bool fragmented = false;
  for (const auto& decoder : decoders_) {
    if (decoder->strips_leading_space(fragmented)) return true;
    fragmented = fragmented || decoder->fuses();
  }
  return false;
}

}  // namespace hgrn2
