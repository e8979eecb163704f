// The normalizers of tokenizer.json: text to text, before it is cut into words.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {

// A text on its way through the normalizers.
struct NormalizedText {
  std::string text;
  // Whether the first character still stems from the first one of the input (Metaspace's
  // prepend_scheme "first" asks).
  bool at_origin = true;
};

// Immutable and thread-safe.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual absl::Status Apply(NormalizedText* text) const = 0;
};

std::unique_ptr<Normalizer> MakeUnicodeNormalizer(unicode::Form form);
std::unique_ptr<Normalizer> MakeLowercase();
std::unique_ptr<Normalizer> MakeStrip(bool left, bool right);
std::unique_ptr<Normalizer> MakePrepend(std::string prefix);
// Replaces `literal`, or the matches of `regex` if that is not null.
std::unique_ptr<Normalizer> MakeReplace(std::string literal, std::unique_ptr<Regex> regex,
                                        std::string replacement);
std::unique_ptr<Normalizer> MakeByteLevelNormalizer();
std::unique_ptr<Normalizer> MakeNormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps);

}  // namespace hgrn2
