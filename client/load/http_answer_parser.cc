#include "client/load/http_answer_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace hgrn2::client {
namespace {

constexpr size_t kMaxHead = 64 << 10;
constexpr size_t kMaxLine = 4 << 10;   // of chunk sizes and trailers
constexpr size_t kMaxBody = 16 << 20;  // of answers that are not event streams
constexpr size_t kMaxEvent = 16 << 20;

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

template <typename Number>
bool ParseWhole(std::string_view text, int base, Number* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value, base);
  return error == std::errc() && end == text.data() + text.size() && *value >= 0;
}

std::string_view WithoutCarriageReturn(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

}  // namespace

void HttpAnswerParser::Reset() {
  step_ = Step::kHead;
  started_ = is_event_stream_ = chunked_ = stopped_ = has_event_data_ = false;
  keep_alive_ = true;
  status_ = 0;
  left_ = -1;
  for (std::string* text : {&line_, &head_, &body_, &event_line_, &event_data_, &error_}) {
    text->clear();
  }
}

HttpAnswerParser::State HttpAnswerParser::Fail(std::string error) {
  error_ = std::move(error);
  return State::kFailed;
}

HttpAnswerParser::State HttpAnswerParser::Feed(std::string_view bytes, OnEvent on_event) {
  started_ |= !bytes.empty();
  std::string_view line;
  while (step_ != Step::kDone && !bytes.empty()) {
    if (step_ == Step::kBody || step_ == Step::kChunkData) {
      const size_t take =
          left_ < 0 ? bytes.size() : std::min(bytes.size(), static_cast<size_t>(left_));
      if (!OnBody(bytes.substr(0, take), on_event)) return Fail("the body is too large");
      if (stopped_) return State::kStopped;
      bytes.remove_prefix(take);
      if (left_ >= 0) left_ -= static_cast<int64_t>(take);
      if (left_ == 0) step_ = step_ == Step::kBody ? Step::kDone : Step::kChunkEnd;
      continue;
    }
    if (!TakeLine(&bytes, &line)) {
      if (line_.size() > (step_ == Step::kHead ? kMaxHead : kMaxLine)) return Fail("line too long");
      continue;
    }
    if (step_ == Step::kHead) {
      if (!line.empty()) {
        head_.append(line).push_back('\n');
        if (head_.size() > kMaxHead) return Fail("the head is too large");
      } else if (!ParseHead()) {
        return Fail("not an HTTP/1.1 response");
      }
    } else if (step_ == Step::kChunkSize) {
      if (!OnChunkSize(line)) return Fail("bad chunk size");
    } else if (step_ == Step::kChunkEnd) {
      if (!line.empty()) return Fail("a chunk is longer than its size");
      step_ = Step::kChunkSize;
    } else if (line.empty()) {  // the end of the trailer
      step_ = Step::kDone;
    }
    line_.clear();
  }
  if (step_ != Step::kDone) return State::kMore;
  return bytes.empty() ? State::kDone : Fail("bytes after the end of the answer");
}

HttpAnswerParser::State HttpAnswerParser::FeedEnd(OnEvent on_event) {
  keep_alive_ = false;
  if (step_ != Step::kBody || left_ >= 0) return Fail("the server closed the connection");
  step_ = Step::kDone;
  OnEventLine("", on_event);
  return stopped_ ? State::kStopped : State::kDone;
}

bool HttpAnswerParser::TakeLine(std::string_view* bytes, std::string_view* line) {
  const size_t end = bytes->find('\n');
  if (end == std::string_view::npos) {
    line_.append(*bytes);
    bytes->remove_prefix(bytes->size());
    return false;
  }
  *line = bytes->substr(0, end);
  if (!line_.empty()) *line = line_.append(*line);
  *line = WithoutCarriageReturn(*line);
  bytes->remove_prefix(end + 1);
  return true;
}

bool HttpAnswerParser::ParseHead() {
  std::string_view head = head_;
  const std::string_view first = head.substr(0, head.find('\n'));
  if (first.size() < 12 || first.substr(0, 7) != "HTTP/1." ||
      !ParseWhole(first.substr(9, 3), 10, &status_)) {
    return false;
  }
  keep_alive_ = first[7] != '0';
  head.remove_prefix(first.size() + 1);
  while (!head.empty()) {
    const std::string_view header = head.substr(0, head.find('\n'));
    const size_t colon = header.find(':');
    if (colon == std::string_view::npos ||
        !ParseHeader(header.substr(0, colon), Trim(header.substr(colon + 1)))) {
      return false;
    }
    head.remove_prefix(header.size() + 1);
  }
  head_.clear();
  if (status_ / 100 == 1) return true;  // such as 100 Continue: the answer's own head follows
  const bool no_body = status_ == 204 || status_ == 304 || (!chunked_ && left_ == 0);
  step_ = no_body ? Step::kDone : chunked_ ? Step::kChunkSize : Step::kBody;
  if (chunked_) left_ = 0;
  return true;
}

bool HttpAnswerParser::ParseHeader(std::string_view name, std::string_view value) {
  if (EqualsIgnoringCase(name, "content-length")) return ParseWhole(value, 10, &left_);
  if (EqualsIgnoringCase(name, "transfer-encoding")) {
    chunked_ = EqualsIgnoringCase(value, "chunked");
    return chunked_ || EqualsIgnoringCase(value, "identity");
  }
  if (EqualsIgnoringCase(name, "connection")) {
    if (EqualsIgnoringCase(value, "close")) keep_alive_ = false;
    if (EqualsIgnoringCase(value, "keep-alive")) keep_alive_ = true;
  }
  if (EqualsIgnoringCase(name, "content-type")) {
    is_event_stream_ =
        EqualsIgnoringCase(Trim(value.substr(0, value.find(';'))), "text/event-stream");
  }
  return true;
}

bool HttpAnswerParser::OnChunkSize(std::string_view line) {
  if (!ParseWhole(Trim(line.substr(0, line.find(';'))), 16, &left_)) return false;
  step_ = left_ > 0 ? Step::kChunkData : Step::kTrailer;
  return true;
}

bool HttpAnswerParser::OnBody(std::string_view piece, OnEvent on_event) {
  if (!is_event_stream_) {
    body_.append(piece);
    return body_.size() <= kMaxBody;
  }
  while (!piece.empty() && !stopped_) {
    const size_t end = piece.find('\n');
    if (end == std::string_view::npos) {
      event_line_.append(piece);
      return event_line_.size() <= kMaxEvent;
    }
    const std::string_view line = piece.substr(0, end);
    if (event_line_.empty()) {
      if (!OnEventLine(WithoutCarriageReturn(line), on_event)) return false;
    } else {
      event_line_.append(line);
      if (!OnEventLine(WithoutCarriageReturn(event_line_), on_event)) return false;
      event_line_.clear();
    }
    piece.remove_prefix(end + 1);
  }
  return true;
}

// Fields other than "data" (event, id, retry, comments) say nothing about tokens.
bool HttpAnswerParser::OnEventLine(std::string_view line, OnEvent on_event) {
  constexpr std::string_view kData = "data:";
  if (line.empty()) {
    if (has_event_data_) stopped_ = !on_event(event_data_);
    has_event_data_ = false;
    event_data_.clear();
  } else if (line.substr(0, kData.size()) == kData) {
    line.remove_prefix(kData.size());
    if (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    if (has_event_data_) event_data_.push_back('\n');
    event_data_.append(line);
    has_event_data_ = true;
  }
  return event_data_.size() <= kMaxEvent;
}

}  // namespace hgrn2::client
