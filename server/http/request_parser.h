// HTTP/1.x request messages from bytes (RFC 9112), in whatever pieces they arrive.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "server/http/http_types.h"

namespace hgrn2 {

struct HttpParserLimits {
  size_t max_header_bytes = 16 << 10;  // request line, headers, and trailers
  uint64_t max_body_bytes = 1 << 20;
};

// Strict where leniency lets two parsers disagree about where a request ends: refuses bare CR and
// LF, folded headers, white space around names, control characters, a repeated or malformed
// Content-Length, Content-Length with Transfer-Encoding, codings other than exactly "chunked", and
// several Host headers. Single-threaded.
class HttpRequestParser {
 public:
  enum class State { kHead, kBody, kComplete, kFailed };

  explicit HttpRequestParser(const HttpParserLimits& limits) : limits_(limits) {}

  // Takes from the front of `data` what belongs to this request and returns how much that was. All
  // of it, unless the request is complete or has failed. A head is taken only once it is whole.
  size_t Feed(std::string_view data);

  State state() const { return state_; }
  // From kBody on.
  const HttpRequest& request() const { return request_; }
  HttpRequest& mutable_request() { return request_; }
  // The client waits for "100 Continue" before it sends the body.
  bool expects_continue() const { return expects_continue_; }
  // kFailed: what to answer.
  int error_status() const { return error_status_; }
  const std::string& error() const { return error_; }

 private:
  enum class Chunk { kSize, kData, kDataEnd, kTrailer };

  bool Fail(int status, std::string message);
  void CheckPartialHead(std::string_view head);
  bool ParseHead(std::string_view head);
  bool ParseRequestLine(std::string_view line);
  bool ParseTarget(std::string_view target);
  bool ParseHeaderLine(std::string_view line);
  bool AddHeader(std::string name, std::string_view value);
  bool CheckHead();
  bool CheckFraming();
  size_t FeedBody(std::string_view data);
  size_t FeedChunked(std::string_view data);
  // A line of the chunked coding, without its CRLF; false if it is not whole yet (or failed).
  bool TakeLine(std::string_view data, size_t* used, std::string* line);
  bool ParseChunkSize(const std::string& line);

  const HttpParserLimits limits_;
  State state_ = State::kHead;
  HttpRequest request_;
  bool expects_continue_ = false;
  bool chunked_ = false;
  uint64_t body_left_ = 0;  // of the body, or of the chunk
  Chunk chunk_ = Chunk::kSize;
  std::string line_;  // of the chunked coding, so far
  size_t trailer_bytes_ = 0;
  size_t searched_ = 0;  // bytes of an incomplete head without its end
  int error_status_ = 0;
  std::string error_;
};

}  // namespace hgrn2
