#include "server/http/request_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace hgrn2 {
namespace {

constexpr size_t kMaxChunkLineBytes = 256;  // size and extensions

bool IsTokenChar(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// Whether a comma-separated list of tokens has `token` (in lower case).
bool ListHas(std::string_view list, std::string_view token) {
  while (true) {
    const size_t comma = list.find(',');
    if (Lower(Trim(list.substr(0, comma))) == token) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
}

// Digits only: no sign, no space, no list, no overflow.
bool ParseUnsigned(std::string_view text, int base, uint64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return error == std::errc() && !text.empty() && end == text.data() + text.size();
}

}  // namespace

bool HttpRequestParser::Fail(int status, std::string message) {
  state_ = State::kFailed;
  error_status_ = status;
  error_ = std::move(message);
  return false;
}

size_t HttpRequestParser::Feed(std::string_view data) {
  if (state_ == State::kBody) return FeedBody(data);
  if (state_ != State::kHead) return 0;
  // Empty lines before a request are allowed (RFC 9112, 2.2), a few of them.
  size_t begin = 0;
  while (begin < 8 && data.substr(begin).starts_with("\r\n")) begin += 2;
  const size_t end = data.find("\r\n\r\n", std::max(begin, searched_));
  const size_t size = end == std::string_view::npos ? data.size() : end + 4;
  if (size - begin > limits_.max_header_bytes) {
    Fail(431, fmt::format("the request's head is larger than {} bytes (http-max-header-bytes)",
                          limits_.max_header_bytes));
    return 0;
  }
  if (end == std::string_view::npos) {
    CheckPartialHead(data.substr(begin));
    searched_ = data.size() < 3 ? 0 : data.size() - 3;
    return 0;
  }
  if (!ParseHead(data.substr(begin, end - begin))) return size;
  if (!chunked_ && body_left_ == 0) {
    state_ = State::kComplete;
    return size;
  }
  state_ = State::kBody;
  return size + FeedBody(data.substr(size));
}

// What is no HTTP (a TLS handshake, lines that end in LF) is told so at once, not at a time-out.
void HttpRequestParser::CheckPartialHead(std::string_view head) {
  if (!head.empty() && head[0] != '\r' && !IsTokenChar(head[0])) Fail(400, "this is not HTTP");
  const size_t line_feed = head.find('\n');
  if (line_feed != std::string_view::npos && (line_feed == 0 || head[line_feed - 1] != '\r')) {
    Fail(400, "a line does not end in CRLF");
  }
}

bool HttpRequestParser::ParseHead(std::string_view head) {
  for (size_t at = 0; (at = head.find_first_of("\r\n", at)) != std::string_view::npos; at += 2) {
    if (!head.substr(at).starts_with("\r\n")) return Fail(400, "a line does not end in CRLF");
  }
  const size_t first = head.find("\r\n");
  if (!ParseRequestLine(head.substr(0, first))) return false;
  while (first != std::string_view::npos && !head.empty()) {
    const size_t end = head.find("\r\n");
    if (end == std::string_view::npos) break;
    head.remove_prefix(end + 2);
    if (!ParseHeaderLine(head.substr(0, head.find("\r\n")))) return false;
  }
  return CheckHead();
}

bool HttpRequestParser::ParseRequestLine(std::string_view line) {
  const size_t space = line.find(' ');
  const size_t last = line.rfind(' ');
  if (space == std::string_view::npos || last == space) {
    return Fail(400, "the request line is not 'METHOD target HTTP/1.1'");
  }
  const std::string_view method = line.substr(0, space);
  const std::string_view version = line.substr(last + 1);
  if (!IsToken(method) || method.size() > 32) return Fail(400, "the method is malformed");
  if (version.size() != 8 || !version.starts_with("HTTP/") || version[6] != '.' ||
      !std::isdigit(static_cast<unsigned char>(version[5])) ||
      !std::isdigit(static_cast<unsigned char>(version[7]))) {
    return Fail(400, "the request line is not 'METHOD target HTTP/1.1'");
  }
  if (version[5] != '1') return Fail(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  request_.method = std::string(method);
  request_.minor_version = version[7] == '0' ? 0 : 1;
  return ParseTarget(line.substr(space + 1, last - space - 1));
}

bool HttpRequestParser::ParseTarget(std::string_view target) {
  const bool visible = std::all_of(target.begin(), target.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != 0x7f;
  });
  if (!visible) return Fail(400, "the request target has a space or control character");
  if (target == "*") {
    request_.path = "*";
    return request_.method == "OPTIONS" || Fail(400, "the target '*' is for OPTIONS");
  }
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (Lower(target.substr(0, scheme.size())) != scheme) continue;
    const size_t path = target.find('/', scheme.size());
    target = path == std::string_view::npos ? "/" : target.substr(path);
    break;
  }
  if (!target.starts_with('/')) return Fail(400, "the request target is not a path");
  const size_t question = target.find('?');
  request_.path = std::string(target.substr(0, question));
  if (question != std::string_view::npos) {
    request_.query = std::string(target.substr(question + 1));
  }
  return true;
}

bool HttpRequestParser::ParseHeaderLine(std::string_view line) {
  if (line.starts_with(' ') || line.starts_with('\t')) {
    return Fail(400, "a header is folded over several lines");
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) {
    return Fail(400, "a header line is not 'name: value'");
  }
  const std::string_view value = Trim(line.substr(colon + 1));
  if (std::any_of(value.begin(), value.end(), [](char c) { return IsControl(c) && c != '\t'; })) {
    return Fail(400, "a header has a control character");
  }
  return AddHeader(Lower(line.substr(0, colon)), value);
}

bool HttpRequestParser::AddHeader(std::string name, std::string_view value) {
  const auto [at, is_new] = request_.headers.try_emplace(std::move(name), value);
  if (is_new) return true;
  for (const char* single :
       {"content-length", "host", "authorization", "content-type", "content-encoding"}) {
    if (at->first == single) return Fail(400, fmt::format("the header {} is repeated", single));
  }
  at->second.append(at->first == "cookie" ? "; " : ", ").append(value);
  return true;
}

bool HttpRequestParser::CheckHead() {
  const bool modern = request_.minor_version >= 1;
  if (modern && !request_.headers.contains("host")) return Fail(400, "there is no Host header");
  const std::string_view connection = request_.Header("connection");
  request_.keep_alive = modern ? !ListHas(connection, "close") : ListHas(connection, "keep-alive");
  if (const std::string expect = Lower(request_.Header("expect")); !expect.empty() && modern) {
    if (expect != "100-continue") return Fail(417, "the only expectation met is 100-continue");
    expects_continue_ = true;
  }
  return CheckFraming();
}

bool HttpRequestParser::CheckFraming() {
  const auto coding = request_.headers.find("transfer-encoding");
  const auto length = request_.headers.find("content-length");
  if (coding != request_.headers.end()) {
    if (length != request_.headers.end()) {
      return Fail(400, "Content-Length and Transfer-Encoding exclude each other");
    }
    if (request_.minor_version == 0) return Fail(400, "HTTP/1.0 has no Transfer-Encoding");
    if (Lower(coding->second) != "chunked") {
      return Fail(501, "the only Transfer-Encoding known is chunked");
    }
    chunked_ = true;
    return true;
  }
  if (length == request_.headers.end()) return true;
  if (!ParseUnsigned(length->second, 10, &body_left_)) {
    return Fail(400, "the Content-Length is not a number");
  }
  if (body_left_ > limits_.max_body_bytes) {
    return Fail(413, fmt::format("the request's body of {} bytes is larger than {} "
                                 "(http-max-body-bytes)",
                                 body_left_, limits_.max_body_bytes));
  }
  return true;
}

size_t HttpRequestParser::FeedBody(std::string_view data) {
  if (chunked_) return FeedChunked(data);
  const auto take = static_cast<size_t>(std::min<uint64_t>(body_left_, data.size()));
  request_.body.append(data.substr(0, take));
  body_left_ -= take;
  if (body_left_ == 0) state_ = State::kComplete;
  return take;
}

bool HttpRequestParser::TakeLine(std::string_view data, size_t* used, std::string* line) {
  const size_t limit = chunk_ == Chunk::kTrailer ? limits_.max_header_bytes : kMaxChunkLineBytes;
  while (*used < data.size()) {
    const char c = data[(*used)++];
    const bool after_cr = line_.ends_with('\r');
    if (after_cr != (c == '\n')) return Fail(400, "a line of the chunked body is malformed");
    if (c == '\n') {
      line_.pop_back();
      line->swap(line_);
      line_.clear();
      return true;
    }
    if (IsControl(c) && c != '\r' && c != '\t') {
      return Fail(400, "a line of the chunked body has a control character");
    }
    line_ += c;
    if (line_.size() > limit) return Fail(400, "a line of the chunked body is too long");
  }
  return false;
}

bool HttpRequestParser::ParseChunkSize(const std::string& line) {
  // Extensions may follow the size; nobody uses them.
  const std::string_view digits = std::string_view(line).substr(0, line.find(';'));
  if (digits.size() > 16 || !ParseUnsigned(digits, 16, &body_left_)) {
    return Fail(400, "a chunk's size is not a hexadecimal number");
  }
  if (body_left_ > limits_.max_body_bytes - request_.body.size()) {
    return Fail(413, fmt::format("the request's body is larger than {} bytes (http-max-body-bytes)",
                                 limits_.max_body_bytes));
  }
  chunk_ = body_left_ == 0 ? Chunk::kTrailer : Chunk::kData;
  return true;
}

size_t HttpRequestParser::FeedChunked(std::string_view data) {
  size_t used = 0;
  std::string line;
  while (state_ == State::kBody && used < data.size()) {
    switch (chunk_) {
      case Chunk::kSize:
        if (TakeLine(data, &used, &line)) ParseChunkSize(line);
        break;
      case Chunk::kData: {
        const auto take = static_cast<size_t>(std::min<uint64_t>(body_left_, data.size() - used));
        request_.body.append(data.substr(used, take));
        used += take;
        body_left_ -= take;
        if (body_left_ == 0) chunk_ = Chunk::kDataEnd;
        break;
      }
      case Chunk::kDataEnd:
        if (!TakeLine(data, &used, &line)) break;
        if (!line.empty()) Fail(400, "a chunk is longer than its size");
        chunk_ = Chunk::kSize;
        break;
      case Chunk::kTrailer:
        // Trailers are read past: none may change what the headers said.
        if (!TakeLine(data, &used, &line)) break;
        trailer_bytes_ += line.size() + 2;
        if (trailer_bytes_ > limits_.max_header_bytes) Fail(431, "the trailers are too large");
        if (line.empty() && state_ == State::kBody) state_ = State::kComplete;
        break;
    }
  }
  return used;
}

}  // namespace hgrn2
