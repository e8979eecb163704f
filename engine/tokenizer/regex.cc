#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/tokenizer/regex.h"

#include <pcre2.h>

#include "base/status.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

// Backtracking steps per match. A linear pattern on a run of 1 MB stays far below; catastrophic
// ones stop after a second or so.
constexpr uint32_t kMatchLimit = 50'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 16 * 1024 * 1024;

// What a match needs besides the pattern. One per thread: PCRE2's code block is shareable, these
// are not.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);

  Scratch() {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

Scratch& ThreadScratch() {
  static thread_local Scratch scratch;
  return scratch;
}

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[256];
  const int length = pcre2_get_error_message(code, buffer, sizeof(buffer));
  return length < 0 ? "unknown error" : std::string(reinterpret_cast<const char*>(buffer));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Regex>> Regex::Compile(std::string_view pattern) {
  ASSIGN_OR_RETURN(const std::string translated, OnigurumaToPcre(pattern));
  std::unique_ptr<Regex> regex(new Regex);
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "regular expression is not supported: {} at offset {}", ErrorText(error),
                      offset);
  }
  regex->code_ = code;
  // Without JIT (a kernel may forbid writable code) the interpreter gives the same matches.
  regex->jit_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  return regex;
}

Regex::~Regex() { pcre2_code_free(static_cast<pcre2_code*>(code_)); }

absl::StatusOr<bool> Regex::Find(std::string_view text, size_t from, Segment* found) const {
  const auto* code = static_cast<const pcre2_code*>(code_);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  Scratch& scratch = ThreadScratch();
  if (scratch.data == nullptr || scratch.context == nullptr) {
    return absl::ResourceExhaustedError("out of memory for a regular expression match");
  }
  int rc = PCRE2_ERROR_JIT_STACKLIMIT;
  if (jit_) {
    rc = pcre2_jit_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, scratch.data,
                         scratch.context);
  }
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    // The interpreter keeps its backtracking points on the heap.
    rc = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                     scratch.data, scratch.context);
  }
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0) {
    return MakeStatus(absl::StatusCode::kResourceExhausted,
                      "text cannot be split by the tokenizer's regular expression: {}",
                      ErrorText(rc));
  }
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(scratch.data);
  *found = {bounds[0], bounds[1] < bounds[0] ? bounds[0] : bounds[1], true};
  return true;
}

absl::Status Regex::Segments(std::string_view text, std::vector<Segment>* out) const {
  out->clear();
  if (text.empty()) {
    out->push_back({0, 0, false});
    return absl::OkStatus();
  }
  std::string stand_in;
  const std::string_view subject =
      unicode::ReplaceWithStandIns(text, &stand_in) ? std::string_view(stand_in) : text;
  size_t previous = 0;
  size_t from = 0;
  bool any = false;
  while (from <= subject.size()) {
    Segment found;
    ASSIGN_OR_RETURN(const bool match, Find(subject, from, &found));
    if (!match) break;
    // An empty match right after another match does not count: step over a character.
    if (found.begin == found.end && any && found.end == previous) {
      from += from < subject.size() ? unicode::CharLength(subject[from]) : 1;
      continue;
    }
    if (found.begin < previous) break;  // only \K could do this, which is refused
    if (found.begin != previous) out->push_back({previous, found.begin, false});
    out->push_back(found);
    previous = from = found.end;
    any = true;
  }
  if (previous != text.size()) out->push_back({previous, text.size(), false});
  return absl::OkStatus();
}

void FindSegments(std::string_view text, std::string_view needle, std::vector<Segment>* out) {
  out->clear();
  size_t previous = 0;
  for (size_t at = text.find(needle); at != text.npos; at = text.find(needle, previous)) {
    if (at != previous) out->push_back({previous, at, false});
    previous = at + needle.size();
    out->push_back({at, previous, true});
  }
  if (previous != text.size()) out->push_back({previous, text.size(), false});
}

std::string ReplaceSegments(std::string_view text, const std::vector<Segment>& segments,
                            std::string_view replacement) {
  std::string out;
  out.reserve(text.size());
  for (const Segment& s : segments) {
    out += s.match ? replacement : text.substr(s.begin, s.end - s.begin);
  }
  return out;
}

}  // namespace hgrn2
