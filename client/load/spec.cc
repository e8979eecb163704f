#include "client/load/spec.h"

#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <cstdlib>

namespace hgrn2::client {
namespace {

std::vector<std::string> Split(const std::string& text, const char* separators) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (;;) {
    const size_t end = text.find_first_of(separators, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

}  // namespace

absl::StatusOr<double> ParseNumber(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || std::isspace(static_cast<unsigned char>(text[0])) ||
      end != text.c_str() + text.size() || std::isnan(value)) {
    return absl::InvalidArgumentError(fmt::format("'{}' is not a number", text));
  }
  return value;
}

absl::StatusOr<Spec> ParseSpec(const std::string& text) {
  std::vector<std::string> parts = Split(text, ":,");
  Spec spec;
  if (!ParseNumber(parts[0]).ok()) {
    spec.name = parts[0];
    parts.erase(parts.begin());
  }
  for (const std::string& part : parts) {
    absl::StatusOr<double> number = ParseNumber(part);
    if (!number.ok()) return number.status();
    spec.numbers.push_back(*number);
  }
  return spec;
}

absl::StatusOr<std::vector<std::pair<std::string, double>>> ParsePairs(const std::string& text) {
  std::vector<std::pair<std::string, double>> pairs;
  for (const std::string& part : Split(text, ", ")) {
    if (part.empty()) continue;
    const size_t colon = part.find(':');
    if (colon == std::string::npos || colon == 0) {
      return absl::InvalidArgumentError(fmt::format("'{}': expected NAME:NUMBER", part));
    }
    absl::StatusOr<double> number = ParseNumber(part.substr(colon + 1));
    if (!number.ok()) return number.status();
    pairs.emplace_back(part.substr(0, colon), *number);
  }
  return pairs;
}

}  // namespace hgrn2::client
