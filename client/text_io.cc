#include "client/text_io.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

namespace hgrn2::client {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  if (path == "-") {
    return std::string(std::istreambuf_iterator<char>(std::cin), {});
  }
  std::ifstream in(path, std::ios::binary);
  std::string text;
  if (in) text.assign(std::istreambuf_iterator<char>(in), {});
  if (!in || in.bad()) {
    return absl::NotFoundError(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  return text;
}

absl::Status WriteFile(const std::string& path, std::string_view contents) {
  std::ofstream out(path, std::ios::binary);
  out.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  out.flush();
  if (!out) return absl::UnknownError(fmt::format("{}: {}", path, std::strerror(errno)));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(std::string_view text) {
  std::vector<int32_t> ids;
  const char* p = text.data();
  const char* const end = p + text.size();
  while (p < end) {
    if (*p == ',' || *p == ' ' || *p == '\n' || *p == '\t' || *p == '[' || *p == ']') {
      ++p;
      continue;
    }
    int32_t id = 0;
    const auto [next, error] = std::from_chars(p, end, id);
    if (error != std::errc() || id < 0) {
      return absl::InvalidArgumentError(fmt::format(
          "token ids: expected non-negative integers, got '{}'", std::string_view(p, end - p)));
    }
    ids.push_back(id);
    p = next;
  }
  return ids;
}

std::string EscapeControls(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = text[i];
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
      out += '^';
      out += static_cast<char>(c ^ 0x40);
    } else if (c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++i]));  // C1 controls
    } else {
      out += static_cast<char>(c);
    }
  }
  return out;
}

void PrintGenerated(std::string_view text) {
  static const bool terminal = isatty(STDOUT_FILENO) != 0;
  const std::string escaped = terminal ? EscapeControls(text) : std::string(text);
  std::fwrite(escaped.data(), 1, escaped.size(), stdout);
  std::fflush(stdout);
}

}  // namespace hgrn2::client
