// Oniguruma (Ruby syntax) to PCRE2. Source of the facts: Oniguruma's doc/RE and pcre2pattern(3).
#include <cstring>

#include "base/status.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) {
      const char c = in_[pos_];
      if (c == '\\') {
        RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        RETURN_IF_ERROR(ClassChar(c));
      } else {
        RETURN_IF_ERROR(Char(c));
      }
    }
    return std::move(out_);
  }

 private:
  absl::Status Unsupported(std::string_view what) const {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "regular expression is not supported: {} at offset {}", what, pos_);
  }

  void Copy(size_t n) {
    out_ += in_.substr(pos_, n);
    pos_ += n;
  }
  bool LooksAt(std::string_view s) const { return in_.substr(pos_, s.size()) == s; }

  absl::Status Char(char c) {
    if (c == '[') {
      in_class_ = true;
      Copy(1);
      if (LooksAt("^")) Copy(1);
      if (LooksAt("]")) Copy(1);  // a literal in both syntaxes
      return absl::OkStatus();
    }
    if (LooksAt("(?")) return Group();
    if (LooksAt("(*")) return Unsupported("(*");
    if (c == '{' && LooksAt("{,")) {
      out_ += "{0,";
      pos_ += 2;
      return absl::OkStatus();
    }
    // Ruby reads {n,m}+ as a repeated repeat, PCRE2 as possessive.
    if (c == '}' && LooksAt("}+")) return Unsupported("}+");
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Group() {
    constexpr std::string_view kSame[] = {"(?:", "(?=", "(?!", "(?>", "(?<", "(?#"};
    for (const std::string_view s : kSame) {
      if (LooksAt(s)) {
        Copy(s.size());
        return absl::OkStatus();
      }
    }
    out_ += "(?";
    pos_ += 2;
    for (; pos_ < in_.size(); ++pos_) {
      const char c = in_[pos_];
      if (c == 'm') {
        out_ += 's';  // Ruby's m lets the dot match a newline
      } else if (c == 'i' || c == 'x' || c == '-') {
        out_ += c;
      } else if (c == ':' || c == ')') {
        Copy(1);
        return absl::OkStatus();
      } else {
        break;
      }
    }
    return Unsupported("group");
  }

  absl::Status ClassChar(char c) {
    if (c == ']') {
      in_class_ = false;
      Copy(1);
      return absl::OkStatus();
    }
    if (c == '[') return Unsupported("a set inside a character class");
    if (LooksAt("&&")) return Unsupported("&&");
    Copy(1);
    return absl::OkStatus();
  }

  // Inside a class the items alone, outside a class of its own.
  void Emit(std::string_view items, std::string_view complement, bool negated) {
    pos_ += 2;
    if (in_class_) {
      out_ += negated ? complement : items;
    } else {
      out_ += negated ? "[^" : "[";
      out_ += items;
      out_ += ']';
    }
  }

  absl::Status Escape() {
    if (pos_ + 1 >= in_.size()) return Unsupported("a trailing backslash");
    const char c = in_[pos_ + 1];
    switch (c) {
      case 'h':
      case 'H':
        Emit("0-9A-Fa-f", "\\x{0}-\\x{2F}\\x{3A}-\\x{40}G-`g-\\x{10FFFF}", c == 'H');
        return absl::OkStatus();
      case 'w':
      case 'W':
        Emit(unicode::OnigurumaWordClass(), unicode::OnigurumaNonWordClass(), c == 'W');
        return absl::OkStatus();
      case 'b':
      case 'B':
        if (!in_class_) return WordBoundary(c == 'B');
        Copy(2);
        return absl::OkStatus();
      case 'v':
        out_ += "\\x0B";
        pos_ += 2;
        return absl::OkStatus();
      case 'p':
      case 'P':
        return Property();
      case 'u':
        return CodePoint();
      case 'x':
        return Hex();
      default:
        break;
    }
    const auto byte = static_cast<unsigned char>(c);
    const bool letter_or_digit =
        ((byte | 32) >= 'a' && (byte | 32) <= 'z') || (byte >= '0' && byte <= '9');
    if (letter_or_digit && std::strchr("sSdDnrtfae0AzZ123456789k", c) == nullptr) {
      return Unsupported(std::string("\\") + c);
    }
    Copy(1 + unicode::CharLength(c));
    return absl::OkStatus();
  }

  absl::Status WordBoundary(bool negated) {
    pos_ += 2;
    const std::string w = "[" + unicode::OnigurumaWordClass() + "]";
    out_ += negated ? fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", w)
                    : fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", w);
    return absl::OkStatus();
  }

  // \p{Name} and \p{^Name} are the same in both.
  absl::Status Property() {
    const size_t close = in_.find('}', pos_);
    if (pos_ + 2 >= in_.size() || in_[pos_ + 2] != '{' || close == in_.npos) {
      return Unsupported("\\p without {name}");
    }
    Copy(close + 1 - pos_);
    return absl::OkStatus();
  }

  absl::Status CodePoint() {
    const std::string_view digits = in_.substr(pos_ + 2, 4);
    if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos) {
      return Unsupported("\\u without four digits");
    }
    out_ += fmt::format("\\x{{{}}}", digits);
    pos_ += 6;
    return absl::OkStatus();
  }

  absl::Status Hex() {
    // \xHH is a byte to Oniguruma and a code point to PCRE2: the same below 0x80 only.
    if (!LooksAt("\\x{") && pos_ + 2 < in_.size() &&
        !(in_[pos_ + 2] >= '0' && in_[pos_ + 2] <= '7')) {
      return Unsupported("\\x of a byte that is not ASCII");
    }
    Copy(2);
    return absl::OkStatus();
  }

  std::string_view in_;
  size_t pos_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> OnigurumaToPcre(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace hgrn2
