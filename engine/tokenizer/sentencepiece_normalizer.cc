#include "engine/tokenizer/sentencepiece_normalizer.h"

#include <algorithm>

#include "base/status.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

uint32_t LittleEndian32(std::string_view bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// Units of the Darts-clone double array: bit 31 marks a value (the low 31 bits); else the low byte
// is the label, bit 8 tells whether a value follows, bits 10 and up are the offset, times 256 if
// bit 9 is set.
uint32_t Label(uint32_t unit) { return unit & (1u << 31 | 0xFF); }
bool HasValue(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Offset(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

}  // namespace

absl::StatusOr<SentencePieceNormalizer> SentencePieceNormalizer::Create(
    const SentencePieceModel& model, std::string_view file) {
  SentencePieceNormalizer normalizer(model);
  const std::string_view map = model.normalizer.charsmap;
  if (map.empty()) return normalizer;
  const uint32_t size = map.size() > 4 ? LittleEndian32(map) : 0;
  if (map.size() <= 4 || size > map.size() - 4 || size % 4 != 0) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: normalizer_spec.precompiled_charsmap is malformed", file);
  }
  normalizer.trie_ = map.substr(4, size);
  normalizer.results_ = map.substr(4 + size);
  // Results are text: check all of them here, so that no lookup can produce bad UTF-8.
  if (!unicode::IsValid(normalizer.results_)) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: normalizer_spec.precompiled_charsmap has results that are not UTF-8",
                      file);
  }
  return normalizer;
}

uint32_t SentencePieceNormalizer::Unit(size_t index) const {
  // Past the end: a value unit, whose label matches no byte.
  return index < trie_.size() / 4 ? LittleEndian32(trie_.substr(index * 4)) : 1u << 31;
}

size_t SentencePieceNormalizer::LongestRule(std::string_view input, size_t* result) const {
  if (trie_.empty()) return 0;
  size_t longest = 0;
  size_t node = Offset(Unit(0));
  for (size_t i = 0; i < input.size(); ++i) {
    const auto byte = static_cast<uint8_t>(input[i]);
    node ^= byte;
    const uint32_t unit = Unit(node);
    if (Label(unit) != byte) break;
    node ^= Offset(unit);
    if (!HasValue(unit)) continue;
    longest = i + 1;
    *result = Unit(node) & ~(1u << 31);
  }
  return longest;
}

SentencePieceNormalizer::Rule SentencePieceNormalizer::Prefix(std::string_view input) const {
  int32_t id = -1;
  const size_t user_defined = model_->user_defined.Longest(input, &id);
  if (user_defined > 0) return {input.substr(0, user_defined), user_defined};
  size_t at = 0;
  const size_t longest = LongestRule(input, &at);
  // A rule that ends inside a character, or whose result starts inside one, is a malformed map's.
  const bool whole = longest > 0 && (longest == input.size() ||
                                     (static_cast<uint8_t>(input[longest]) & 0xC0) != 0x80);
  const bool result_ok =
      at < results_.size() && (static_cast<uint8_t>(results_[at]) & 0xC0) != 0x80;
  if (whole && result_ok) {
    const std::string_view result = results_.substr(at);
    return {result.substr(0, std::min(result.find('\0'), result.size())), longest};
  }
  const size_t length = unicode::CharLength(input[0]);
  return {input.substr(0, length), length};
}

std::string SentencePieceNormalizer::Normalize(std::string_view input) const {
  const auto& spec = model_->normalizer;
  std::string out;
  while (spec.remove_extra_whitespaces && !input.empty()) {
    const Rule rule = Prefix(input);
    if (rule.text != " ") break;
    input.remove_prefix(rule.consumed);
  }
  if (input.empty()) return out;
  out.reserve(input.size() + input.size() / 2);
  const std::string_view space = spec.escape_whitespaces ? kSpaceSymbol : std::string_view(" ");
  const bool prefix = spec.add_dummy_prefix && !model_->treat_whitespace_as_suffix;
  if (prefix) out += space;
  bool after_space = spec.remove_extra_whitespaces;
  while (!input.empty()) {
    const Rule rule = Prefix(input);
    std::string_view text = rule.text;
    while (after_space && !text.empty() && text[0] == ' ') text.remove_prefix(1);
    for (const char c : text) {
      if (c == ' ') {
        out += space;
      } else {
        out += c;
      }
    }
    if (!text.empty()) after_space = spec.remove_extra_whitespaces && text.back() == ' ';
    input.remove_prefix(rule.consumed);
  }
  while (spec.remove_extra_whitespaces && EndsWith(out, space)) {
    out.resize(out.size() - space.size());
  }
  if (spec.add_dummy_prefix && model_->treat_whitespace_as_suffix) out += space;
  return out;
}

}  // namespace hgrn2
