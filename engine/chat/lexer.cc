#include "engine/chat/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/status.h"
#include "engine/chat/text.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2::chat {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// Every kind of line end to "\n", and without the last one.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

// Whether the text after its last line end is white space, and not empty.
bool EndsInIndent(std::string_view text, bool line_starting, size_t* start) {
  const size_t newline = text.rfind('\n');
  if (newline == text.npos && !line_starting) return false;
  *start = newline == text.npos ? 0 : newline + 1;
  const std::string_view indent = text.substr(*start);
  return !indent.empty() && StripLeft(indent).empty();
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (pos_ < source_.size()) RETURN_IF_ERROR(NextPart());
    Emit(Token::Type::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(pos_); }
  bool At(std::string_view text) const { return Rest().starts_with(text); }
  void Advance(size_t bytes) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(pos_),
                                    source_.begin() + static_cast<ptrdiff_t>(pos_ + bytes), '\n'));
    pos_ += bytes;
    if (bytes > 0) line_starting_ = source_[pos_ - 1] == '\n';
  }
  void SkipSpace() { Advance(Rest().size() - StripLeft(Rest()).size()); }
  void Emit(Token::Type type, std::string text) {
    Token token;
    token.type = type;
    token.line = line_;
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
  }
  absl::Status Error(std::string_view message) const { return SyntaxError(line_, message); }

  // Data up to a tag with this sign, which takes white space away from it.
  void EmitData(std::string_view data, char sign, bool may_lstrip) {
    size_t start;
    if (sign == '-') {
      data = StripRight(data);
    } else if (sign != '+' && may_lstrip && EndsInIndent(data, line_starting_, &start)) {
      data = data.substr(0, start);
    }
    if (!data.empty()) Emit(Token::Type::kData, std::string(data));
  }

  // Data and the tag, comment or raw block after it.
  absl::Status NextPart() {
    size_t at = pos_;
    while (true) {
      at = source_.find('{', at);
      if (at == source_.npos || at + 1 >= source_.size()) {
        EmitData(Rest(), '+', false);
        Advance(Rest().size());
        return absl::OkStatus();
      }
      const char next = source_[at + 1];
      if (next == '{' || next == '%' || next == '#') break;
      ++at;
    }
    const char kind = source_[at + 1];
    const char sign = at + 2 < source_.size() ? source_[at + 2] : '\0';
    EmitData(std::string_view(source_).substr(pos_, at - pos_), sign, kind != '{');
    Advance(at - pos_ + 2);
    if (sign == '-' || sign == '+') Advance(1);
    if (kind == '#') return Comment();
    if (kind == '%' && AtRaw()) return Raw();
    return Tag(kind == '{' ? Token::Type::kVariableBegin : Token::Type::kBlockBegin);
  }

  // The end of a block or comment: its sign decides what white space goes with it.
  bool SkipBlockEnd(char mark) {
    const std::array<char, 2> end = {mark, '}'};
    const std::string_view plain(end.data(), end.size());
    const std::string_view rest = Rest();
    if (rest.starts_with('+') && rest.substr(1).starts_with(plain)) {
      Advance(3);
    } else if (rest.starts_with('-') && rest.substr(1).starts_with(plain)) {
      Advance(3);
      SkipSpace();
    } else if (rest.starts_with(plain)) {
      Advance(2);
      if (At("\n")) Advance(1);
    } else {
      return false;
    }
    return true;
  }

  absl::Status Comment() {
    const int begin = line_;
    const size_t end = source_.find("#}", pos_);
    if (end == source_.npos) return SyntaxError(begin, "a comment is not closed with #}");
    const bool has_sign = end > pos_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    Advance(end - (has_sign ? 1 : 0) - pos_);
    SkipBlockEnd('#');
    return absl::OkStatus();
  }

  bool AtRaw() const {
    std::string_view rest = StripLeft(Rest());
    if (!rest.starts_with("raw")) return false;
    rest = StripLeft(rest.substr(3));
    return rest.starts_with("%}") || rest.starts_with("-%}");
  }

  absl::Status Raw() {
    const int begin = line_;
    SkipSpace();
    Advance(3);
    SkipSpace();
    const bool strip = At("-");
    Advance(strip ? 3 : 2);
    if (strip) SkipSpace();
    for (size_t at = source_.find("{%", pos_); at != source_.npos;
         at = source_.find("{%", at + 2)) {
      std::string_view rest = std::string_view(source_).substr(at + 2);
      const char sign = rest.empty() ? '\0' : rest[0];
      if (sign == '-' || sign == '+') rest.remove_prefix(1);
      rest = StripLeft(rest);
      if (!rest.starts_with("endraw")) continue;
      rest = StripLeft(rest.substr(6));
      if (!rest.starts_with("%}") && !rest.starts_with("-%}") && !rest.starts_with("+%}")) continue;
      EmitData(std::string_view(source_).substr(pos_, at - pos_), sign, true);
      Advance(source_.size() - rest.size() - pos_);
      SkipBlockEnd('%');
      return absl::OkStatus();
    }
    return SyntaxError(begin, "a raw block is not closed with {% endraw %}");
  }

  absl::Status Tag(Token::Type begin) {
    const bool variable = begin == Token::Type::kVariableBegin;
    const int line = line_;
    Emit(begin, "");
    brackets_.clear();
    while (true) {
      SkipSpace();
      if (pos_ >= source_.size()) {
        return SyntaxError(line,
                           variable ? "{{ is not closed with }}" : "{% is not closed with %}");
      }
      if (brackets_.empty() && (variable ? SkipVariableEnd() : TryBlockEnd()))
        return absl::OkStatus();
      RETURN_IF_ERROR(NextToken());
    }
  }

  bool SkipVariableEnd() {
    if (!At("}}") && !At("-}}")) return false;
    Emit(Token::Type::kVariableEnd, "");
    if (At("}}")) {
      Advance(2);
    } else {
      Advance(3);
      SkipSpace();
    }
    return true;
  }

  bool TryBlockEnd() {
    if (!At("%}") && !At("-%}") && !At("+%}")) return false;
    Emit(Token::Type::kBlockEnd, "");
    return SkipBlockEnd('%');
  }

  absl::Status NextToken() {
    const char c = source_[pos_];
    if (IsDigit(c)) return Number();
    if (IsNameStart(c)) {
      size_t end = pos_;
      while (end < source_.size() && (IsNameStart(source_[end]) || IsDigit(source_[end]))) ++end;
      Emit(Token::Type::kName, source_.substr(pos_, end - pos_));
      Advance(end - pos_);
      return absl::OkStatus();
    }
    if (c == '\'' || c == '"') return String(c);
    return Operator();
  }

  absl::Status Operator() {
    for (const std::string_view op :
         {"//", "**", "==", "!=", "<=", ">=", "+", "-", "/", "*", "%", "~", "[",
          "]",  "(",  ")",  "{",  "}",  "<",  ">", "=", ".", ":", "|", ",", ";"}) {
      if (!At(op)) continue;
      RETURN_IF_ERROR(Balance(op[0]));
      Emit(Token::Type::kOperator, std::string(op));
      Advance(op.size());
      return absl::OkStatus();
    }
    size_t pos = pos_;
    unicode::Next(source_, &pos);
    return Error(fmt::format("unexpected character {}", Repr(source_.substr(pos_, pos - pos_))));
  }

  absl::Status Balance(char c) {
    constexpr std::string_view kOpen = "([{";
    constexpr std::string_view kClose = ")]}";
    if (kOpen.find(c) != kOpen.npos) brackets_ += kClose[kOpen.find(c)];
    if (kClose.find(c) == kClose.npos) return absl::OkStatus();
    if (brackets_.empty()) return Error(fmt::format("unexpected '{}'", c));
    const char expected = brackets_.back();
    brackets_.pop_back();
    if (expected == c) return absl::OkStatus();
    return Error(fmt::format("unexpected '{}', expected '{}'", c, expected));
  }

  // Digits, with single underscores between them.
  void Digits(std::string* out) {
    while (pos_ < source_.size()) {
      const bool underscore =
          source_[pos_] == '_' && pos_ + 1 < source_.size() && IsDigit(source_[pos_ + 1]);
      if (!IsDigit(source_[pos_]) && !underscore) return;
      if (!underscore) *out += source_[pos_];
      Advance(1);
    }
  }

  absl::Status Number() {
    std::string digits;
    const bool after_dot = !tokens_.empty() && tokens_.back().IsOperator(".");
    Digits(&digits);
    const auto digit_at = [&](size_t offset) {
      return pos_ + offset < source_.size() && IsDigit(source_[pos_ + offset]);
    };
    bool is_float = false;
    if (!after_dot && At(".") && digit_at(1)) {
      is_float = true;
      digits += '.';
      Advance(1);
      Digits(&digits);
    }
    if (!after_dot && (At("e") || At("E"))) {
      const bool sign =
          pos_ + 1 < source_.size() && (source_[pos_ + 1] == '+' || source_[pos_ + 1] == '-');
      if (digit_at(sign ? 2 : 1)) {
        is_float = true;
        digits += source_.substr(pos_, sign ? 2 : 1);
        Advance(sign ? 2 : 1);
        Digits(&digits);
      }
    }
    if (pos_ < source_.size() && IsNameStart(source_[pos_])) {
      return Error("numbers in another base than ten are not supported");
    }
    Emit(is_float ? Token::Type::kFloat : Token::Type::kInteger, digits);
    Token& token = tokens_.back();
    const char* const end = digits.data() + digits.size();
    const auto result = is_float ? std::from_chars(digits.data(), end, token.number)
                                 : std::from_chars(digits.data(), end, token.integer);
    if (result.ec != std::errc())
      return Error(fmt::format("the number {} is too large", digits.substr(0, 40)));
    return absl::OkStatus();
  }

  absl::Status String(char quote) {
    const int line = line_;
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return SyntaxError(line, "a string is not closed");
    std::string value;
    if (!Unescape(std::string_view(source_).substr(pos_ + 1, end - pos_ - 1), &value)) {
      return SyntaxError(line,
                         "a string has an escape sequence that is not valid or not supported");
    }
    Emit(Token::Type::kString, std::move(value));
    Advance(end + 1 - pos_);
    return absl::OkStatus();
  }

  static bool Unescape(std::string_view text, std::string* out) {
    constexpr std::string_view kFrom = "\\'\"abfnrtv";
    constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        *out += text[i];
        continue;
      }
      const char c = text[++i];
      if (const size_t at = kFrom.find(c); at != kFrom.npos) {
        *out += kTo[at];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        uint32_t code = 0;
        const char* const first = text.data() + i + 1;
        if (i + digits >= text.size()) return false;
        const auto result = std::from_chars(first, first + digits, code, 16);
        if (result.ptr != first + digits || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
          return false;
        unicode::Append(static_cast<char32_t>(code), out);
        i += digits;
      } else if (IsDigit(c) || c == 'N') {
        return false;
      } else if (c != '\n') {  // Python keeps unknown sequences
        *out += '\\';
        *out += c;
      }
    }
    return true;
  }

  const std::string source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what was taken last ended a line
  std::string brackets_;       // that are to be closed
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status SyntaxError(int line, std::string_view message) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "line {}: {}", line, message);
}

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace hgrn2::chat
