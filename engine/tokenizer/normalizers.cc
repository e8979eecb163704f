#include "engine/tokenizer/normalizers.h"

#include <utility>

#include "base/status_macros.h"
#include "engine/tokenizer/byte_alphabet.h"

namespace hgrn2 {
namespace {

class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(unicode::Form form) : form_(form) {}
  absl::Status Apply(NormalizedText* text) const override {
    text->text = unicode::Normalize(text->text, form_);
    return absl::OkStatus();
  }

 private:
  unicode::Form form_;
};

class LowercaseNormalizer : public Normalizer {
 public:
  absl::Status Apply(NormalizedText* text) const override {
    text->text = unicode::Lowercase(text->text);
    return absl::OkStatus();
  }
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  absl::Status Apply(NormalizedText* text) const override {
    const std::string_view all = text->text;
    size_t begin = 0;
    size_t end = all.size();
    for (size_t next = 0; left_ && next < all.size();) {
      if (!unicode::IsWhitespace(unicode::Next(all, &next))) break;
      begin = next;
    }
    while (right_ && end > begin) {
      const size_t previous = unicode::Previous(all, end);
      size_t pos = previous;
      if (!unicode::IsWhitespace(unicode::Next(all, &pos))) break;
      end = previous;
    }
    if (begin > 0) text->at_origin = false;
    text->text = std::string(all.substr(begin, end - begin));
    return absl::OkStatus();
  }

 private:
  bool left_, right_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  absl::Status Apply(NormalizedText* text) const override {
    if (!text->text.empty()) text->text.insert(0, prefix_);
    return absl::OkStatus();
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(std::string literal, std::unique_ptr<Regex> regex, std::string replacement)
      : literal_(std::move(literal)),
        regex_(std::move(regex)),
        replacement_(std::move(replacement)) {}

  absl::Status Apply(NormalizedText* text) const override {
    std::vector<Segment> segments;
    if (regex_ != nullptr) {
      RETURN_IF_ERROR(regex_->Segments(text->text, &segments));
    } else {
      FindSegments(text->text, literal_, &segments);
    }
    if (!segments.empty() && segments[0].match && replacement_.empty()) text->at_origin = false;
    text->text = ReplaceSegments(text->text, segments, replacement_);
    return absl::OkStatus();
  }

 private:
  std::string literal_;
  std::unique_ptr<Regex> regex_;
  std::string replacement_;
};

class ByteLevelNormalizer : public Normalizer {
 public:
  absl::Status Apply(NormalizedText* text) const override {
    text->text = BytesToAlphabet(text->text);
    return absl::OkStatus();
  }
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps)
      : steps_(std::move(steps)) {}
  absl::Status Apply(NormalizedText* text) const override {
    for (const auto& step : steps_) RETURN_IF_ERROR(step->Apply(text));
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

}  // namespace

std::unique_ptr<Normalizer> MakeUnicodeNormalizer(unicode::Form form) {
  return std::make_unique<UnicodeNormalizer>(form);
}
std::unique_ptr<Normalizer> MakeLowercase() { return std::make_unique<LowercaseNormalizer>(); }
std::unique_ptr<Normalizer> MakeStrip(bool left, bool right) {
  return std::make_unique<Strip>(left, right);
}
std::unique_ptr<Normalizer> MakePrepend(std::string prefix) {
  return std::make_unique<Prepend>(std::move(prefix));
}
std::unique_ptr<Normalizer> MakeReplace(std::string literal, std::unique_ptr<Regex> regex,
                                        std::string replacement) {
  return std::make_unique<Replace>(std::move(literal), std::move(regex), std::move(replacement));
}
std::unique_ptr<Normalizer> MakeByteLevelNormalizer() {
  return std::make_unique<ByteLevelNormalizer>();
}
std::unique_ptr<Normalizer> MakeNormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps) {
  return std::make_unique<NormalizerSequence>(std::move(steps));
}

}  // namespace hgrn2
