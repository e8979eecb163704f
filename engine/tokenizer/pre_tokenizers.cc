#include "engine/tokenizer/pre_tokenizers.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

// The pattern of GPT-2, which ByteLevel uses unless a Split has done the work.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Joins segments in place as `behavior` says; `match` then means "to be removed".
void ApplyBehavior(SplitBehavior behavior, std::vector<Segment>* segments) {
  std::vector<Segment>& s = *segments;
  if (behavior == SplitBehavior::kRemoved) return;
  if (behavior == SplitBehavior::kIsolated) {
    for (Segment& x : s) x.match = false;
    return;
  }
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(s.begin(), s.end());
  bool previous = false;
  size_t kept = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    const bool match = s[i].match;
    const bool join =
        behavior == SplitBehavior::kContiguous ? match == previous : match && !previous;
    previous = match;
    if (join && kept > 0) {
      (backwards ? s[kept - 1].begin : s[kept - 1].end) = backwards ? s[i].begin : s[i].end;
    } else {
      s[kept++] = {s[i].begin, s[i].end, false};
    }
  }
  s.resize(kept);
  if (backwards) std::reverse(s.begin(), s.end());
}

// Cuts every text piece with `find(text, &segments)`.
template <typename Find>
absl::Status SplitPieces(PieceList* list, SplitBehavior behavior, bool invert, const Find& find) {
  std::vector<Piece> out;
  out.reserve(list->pieces.size());
  std::vector<Segment> segments;
  for (const Piece& piece : list->pieces) {
    if (piece.token >= 0) {
      out.push_back(piece);
      continue;
    }
    if (piece.text.empty()) continue;
    RETURN_IF_ERROR(find(piece.text, &segments));
    if (invert) {
      for (Segment& s : segments) s.match = !s.match;
    }
    ApplyBehavior(behavior, &segments);
    for (const Segment& s : segments) {
      if (s.match || s.begin == s.end) continue;
      out.push_back(
          {piece.text.substr(s.begin, s.end - s.begin), -1, piece.at_origin && s.begin == 0});
    }
  }
  list->pieces = std::move(out);
  return absl::OkStatus();
}

// Segments of the single characters for which `is_match` holds.
template <typename Predicate>
absl::Status CharSegments(std::string_view text, const Predicate& is_match,
                          std::vector<Segment>* out) {
  out->clear();
  size_t previous = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    if (!is_match(unicode::Next(text, &pos))) continue;
    if (previous != start) out->push_back({previous, start, false});
    out->push_back({start, pos, true});
    previous = pos;
  }
  if (previous != text.size()) out->push_back({previous, text.size(), false});
  return absl::OkStatus();
}

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex) : add_prefix_space_(add_prefix_space) {
    if (!use_regex) return;
    auto regex = Regex::Compile(kGpt2Pattern);
    HGRN2_CHECK(regex.ok(), "the GPT-2 pattern must compile");
    regex_ = *std::move(regex);
  }

  absl::Status Apply(PieceList* list) const override {
    RETURN_IF_ERROR(ApplyRaw(list));
    for (Piece& piece : list->pieces) {
      if (piece.token < 0) piece.text = list->Keep(BytesToAlphabet(piece.text));
    }
    return absl::OkStatus();
  }

  bool ends_in_byte_alphabet() const override { return true; }

  absl::Status ApplyRaw(PieceList* list) const override {
    if (add_prefix_space_) {
      for (Piece& piece : list->pieces) {
        if (piece.token >= 0 || piece.text.empty() || piece.text[0] == ' ') continue;
        std::string text(1, ' ');
        text += piece.text;
        piece.text = list->Keep(std::move(text));
      }
    }
    if (regex_ == nullptr) return absl::OkStatus();
    return SplitPieces(list, SplitBehavior::kIsolated, false,
                       [this](std::string_view text, std::vector<Segment>* out) {
                         return regex_->Segments(text, out);
                       });
  }

 private:
  bool add_prefix_space_;
  std::unique_ptr<Regex> regex_;
};

class Metaspace : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  absl::Status Apply(PieceList* list) const override {
    std::vector<Segment> segments;
    for (Piece& piece : list->pieces) {
      if (piece.token >= 0) continue;
      FindSegments(piece.text, " ", &segments);
      std::string text = ReplaceSegments(piece.text, segments, replacement_);
      const bool wanted = scheme_ == PrependScheme::kAlways ||
                          (scheme_ == PrependScheme::kFirst && piece.at_origin);
      if (wanted && !text.empty() && text.compare(0, replacement_.size(), replacement_) != 0) {
        text.insert(0, replacement_);
      }
      piece.text = list->Keep(std::move(text));
    }
    if (!split_) return absl::OkStatus();
    return SplitPieces(list, SplitBehavior::kMergedWithNext, false,
                       [this](std::string_view text, std::vector<Segment>* out) {
                         FindSegments(text, replacement_, out);
                         return absl::OkStatus();
                       });
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

class Split : public PreTokenizer {
 public:
  Split(std::string literal, std::unique_ptr<Regex> regex, SplitBehavior behavior, bool invert)
      : literal_(std::move(literal)),
        regex_(std::move(regex)),
        behavior_(behavior),
        invert_(invert) {}

  absl::Status Apply(PieceList* list) const override {
    return SplitPieces(list, behavior_, invert_,
                       [this](std::string_view text, std::vector<Segment>* out) {
                         if (regex_ != nullptr) return regex_->Segments(text, out);
                         FindSegments(text, literal_, out);
                         return absl::OkStatus();
                       });
  }

 private:
  std::string literal_;
  std::unique_ptr<Regex> regex_;
  SplitBehavior behavior_;
  bool invert_;
};

// Splits at the characters of one class.
class ClassSplit : public PreTokenizer {
 public:
  ClassSplit(bool (*is_match)(char32_t), SplitBehavior behavior)
      : is_match_(is_match), behavior_(behavior) {}

  absl::Status Apply(PieceList* list) const override {
    return SplitPieces(list, behavior_, false,
                       [this](std::string_view text, std::vector<Segment>* out) {
                         return CharSegments(text, is_match_, out);
                       });
  }

 private:
  bool (*is_match_)(char32_t);
  SplitBehavior behavior_;
};

// \w+|[^\w\s]+ of the Rust regex crate; what is between is dropped.
class Whitespace : public PreTokenizer {
 public:
  absl::Status Apply(PieceList* list) const override {
    return SplitPieces(list, SplitBehavior::kRemoved, false, Segments);
  }

 private:
  enum Kind { kSpace, kWord, kOther };
  static Kind KindOf(char32_t c) {
    if (unicode::IsWord(c)) return kWord;
    return unicode::IsWhitespace(c) ? kSpace : kOther;
  }
  static absl::Status Segments(std::string_view text, std::vector<Segment>* out) {
    out->clear();
    Kind last = kSpace;
    for (size_t pos = 0; pos < text.size();) {
      const size_t start = pos;
      const Kind kind = KindOf(unicode::Next(text, &pos));
      if (!out->empty() && kind == last) {
        out->back().end = pos;
      } else {
        out->push_back({start, pos, kind == kSpace});
      }
      last = kind;
    }
    return absl::OkStatus();
  }
};

class PreTokenizerSequence : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::unique_ptr<PreTokenizer>> steps)
      : steps_(std::move(steps)) {}

  absl::Status Apply(PieceList* list) const override {
    for (const auto& step : steps_) RETURN_IF_ERROR(step->Apply(list));
    return absl::OkStatus();
  }
  bool ends_in_byte_alphabet() const override {
    return !steps_.empty() && steps_.back()->ends_in_byte_alphabet();
  }
  absl::Status ApplyRaw(PieceList* list) const override {
    for (const auto& step : steps_) {
      const bool last = &step == &steps_.back();
      RETURN_IF_ERROR(last ? step->ApplyRaw(list) : step->Apply(list));
    }
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

}  // namespace

std::unique_ptr<PreTokenizer> MakeByteLevel(bool add_prefix_space, bool use_regex) {
  return std::make_unique<ByteLevel>(add_prefix_space, use_regex);
}
std::unique_ptr<PreTokenizer> MakeMetaspace(std::string replacement, PrependScheme scheme,
                                            bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme, split);
}
std::unique_ptr<PreTokenizer> MakeSplit(std::string literal, std::unique_ptr<Regex> regex,
                                        SplitBehavior behavior, bool invert) {
  return std::make_unique<Split>(std::move(literal), std::move(regex), behavior, invert);
}
std::unique_ptr<PreTokenizer> MakeDigits(bool individual) {
  return std::make_unique<ClassSplit>(
      unicode::IsNumeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}
std::unique_ptr<PreTokenizer> MakePunctuation(SplitBehavior behavior) {
  return std::make_unique<ClassSplit>(unicode::IsPunctuation, behavior);
}
std::unique_ptr<PreTokenizer> MakeWhitespace() { return std::make_unique<Whitespace>(); }
std::unique_ptr<PreTokenizer> MakeWhitespaceSplit() {
  return std::make_unique<ClassSplit>(unicode::IsWhitespace, SplitBehavior::kRemoved);
}
std::unique_ptr<PreTokenizer> MakePreTokenizerSequence(
    std::vector<std::unique_ptr<PreTokenizer>> steps) {
  return std::make_unique<PreTokenizerSequence>(std::move(steps));
}

}  // namespace hgrn2
