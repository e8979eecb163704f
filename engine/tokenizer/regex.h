// Regular expressions of tokenizer.json (Oniguruma, Ruby syntax) on PCRE2 with its JIT.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hgrn2 {

// A part of a text and whether it is what one looked for.
struct Segment {
  size_t begin, end;
  bool match;
};

// The pattern in PCRE2's syntax. The two differ in what (?m), \h, \v, \w and \uHHHH mean; what has
// no equivalent (class intersections, absence operators...) is refused.
absl::StatusOr<std::string> OnigurumaToPcre(std::string_view pattern);

// Immutable and thread-safe.
class Regex {
 public:
  // INVALID_ARGUMENT (with PCRE2's message and the offset) if the pattern is not understood.
  static absl::StatusOr<std::unique_ptr<Regex>> Compile(std::string_view pattern);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // Cuts `text` into matches and what is between them, in order; no part is empty unless the
  // pattern matches the empty string. RESOURCE_EXHAUSTED if a match needs too much backtracking.
  // REQUIRES: valid UTF-8.
  absl::Status Segments(std::string_view text, std::vector<Segment>* out) const;

 private:
  Regex() = default;
  // Bounds of the next match at or after `from`; false if there is none.
  absl::StatusOr<bool> Find(std::string_view text, size_t from, Segment* found) const;

  void* code_ = nullptr;  // pcre2_code_8
  bool jit_ = false;
};

// The same for a plain string. REQUIRES: !needle.empty()
void FindSegments(std::string_view text, std::string_view needle, std::vector<Segment>* out);

// `text` with its matches replaced.
std::string ReplaceSegments(std::string_view text, const std::vector<Segment>& segments,
                            std::string_view replacement);

}  // namespace hgrn2
