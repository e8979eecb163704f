#include "client/load/json_scanner.h"

#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

namespace hgrn2::client {
namespace {

constexpr int kMaxDepth = 64;

}  // namespace

char JsonScanner::Peek() {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  return at_ < end_ ? *at_ : '\0';
}

bool JsonScanner::Take(char c) {
  if (Peek() != c) return false;
  ++at_;
  return true;
}

bool JsonScanner::SkipString() {
  if (!Take('"')) return false;
  while (at_ < end_) {
    const auto* quote = static_cast<const char*>(std::memchr(at_, '"', end_ - at_));
    if (quote == nullptr) return false;
    const char* slash = quote;
    while (slash > at_ && slash[-1] == '\\') --slash;
    at_ = quote + 1;
    if ((quote - slash) % 2 == 0) return true;  // an even number of backslashes escape each other
  }
  return false;
}

bool JsonScanner::String(std::string_view* raw) {
  if (Peek() != '"') return false;
  const char* begin = at_ + 1;
  if (!SkipString()) return false;
  *raw = std::string_view(begin, at_ - 1 - begin);
  return true;
}

bool JsonScanner::Integer(int64_t* value) {
  Peek();
  const auto [end, error] = std::from_chars(at_, end_, *value);
  if (error != std::errc() || (end < end_ && (*end == '.' || *end == 'e' || *end == 'E'))) {
    return false;
  }
  at_ = end;
  return true;
}

bool JsonScanner::Number(double* value) {
  Peek();
  const auto [end, error] = std::from_chars(at_, end_, *value);
  at_ = end;
  return error == std::errc();
}

bool JsonScanner::Object(absl::FunctionRef<bool(std::string_view)> member) {
  if (!Take('{') || ++depth_ > kMaxDepth) return false;
  if (!Take('}')) {
    do {
      std::string_view name;
      if (!String(&name) || !Take(':') || !member(name)) return false;
    } while (Take(','));
    if (!Take('}')) return false;
  }
  --depth_;
  return true;
}

bool JsonScanner::Array(absl::FunctionRef<bool()> element) {
  if (!Take('[') || ++depth_ > kMaxDepth) return false;
  if (!Take(']')) {
    do {
      if (!element()) return false;
    } while (Take(','));
    if (!Take(']')) return false;
  }
  --depth_;
  return true;
}

bool JsonScanner::Skip() {
  switch (Peek()) {
    case '{':
      return Object([this](std::string_view) { return Skip(); });
    case '[':
      return Array([this] { return Skip(); });
    case '"':
      return SkipString();
    default:
      break;
  }
  const char* begin = at_;
  while (at_ < end_ && std::strchr(",]} \n\t\r", *at_) == nullptr) ++at_;
  return at_ > begin;
}

std::string JsonUnescape(std::string_view raw) {
  std::string quoted(1, '"');
  quoted.append(raw).push_back('"');
  const auto json = nlohmann::json::parse(quoted, nullptr, false);
  return json.is_string() ? json.get<std::string>() : std::string(raw);
}

}  // namespace hgrn2::client
