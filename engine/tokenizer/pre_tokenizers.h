// The pre-tokenizers of tokenizer.json: normalized text to words, the units of byte-pair merging.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/regex.h"

namespace hgrn2 {

// A stretch of text: an added token already found, or text to be tokenized.
struct Piece {
  std::string_view text;
  int32_t token = -1;
  bool at_origin = false;  // starts at the first character of the whole input
};

struct PieceList {
  std::vector<Piece> pieces;
  std::deque<std::string> storage;  // owns rewritten text; addresses are stable

  std::string_view Keep(std::string text) { return storage.emplace_back(std::move(text)); }
};

// What becomes of the part that a split looks for.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Immutable and thread-safe. Pieces that are tokens pass unchanged, empty pieces are dropped.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual absl::Status Apply(PieceList* list) const = 0;
  // Whether this ends by writing bytes in the byte-level alphabet. ApplyRaw then does everything
  // but that, so that a model which works on bytes need not undo it.
  virtual bool ends_in_byte_alphabet() const { return false; }
  virtual absl::Status ApplyRaw(PieceList* list) const { return Apply(list); }
};

enum class PrependScheme { kFirst, kNever, kAlways };

std::unique_ptr<PreTokenizer> MakeByteLevel(bool add_prefix_space, bool use_regex);
std::unique_ptr<PreTokenizer> MakeMetaspace(std::string replacement, PrependScheme scheme,
                                            bool split);
// Splits at `literal`, or at the matches of `regex` if that is not null; `invert` swaps matches and
// what is between them.
std::unique_ptr<PreTokenizer> MakeSplit(std::string literal, std::unique_ptr<Regex> regex,
                                        SplitBehavior behavior, bool invert);
std::unique_ptr<PreTokenizer> MakeDigits(bool individual);
std::unique_ptr<PreTokenizer> MakePunctuation(SplitBehavior behavior);
std::unique_ptr<PreTokenizer> MakeWhitespace();
std::unique_ptr<PreTokenizer> MakeWhitespaceSplit();
std::unique_ptr<PreTokenizer> MakePreTokenizerSequence(
    std::vector<std::unique_ptr<PreTokenizer>> steps);

}  // namespace hgrn2
