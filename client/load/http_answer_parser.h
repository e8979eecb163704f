// An HTTP/1.1 response as it arrives: head, body (chunked, of a given length, or up to the end of
// the connection), and the server-sent events in it. Knows no sockets; pieces may be cut anywhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace hgrn2::client {

class HttpAnswerParser {
 public:
  enum class State { kMore, kDone, kStopped, kFailed };
  // Called with the data of each event. Returns false to stop: Feed then returns kStopped.
  using OnEvent = absl::FunctionRef<bool(std::string_view data)>;

  // Ready for the next answer.
  void Reset();
  // kDone: the answer is complete. kFailed: not HTTP, or over a limit; error() says why.
  // REQUIRES: returned kMore so far.
  State Feed(std::string_view bytes, OnEvent on_event);
  // The peer closed the connection.
  State FeedEnd(OnEvent on_event);

  bool started() const { return started_; }  // a byte has come
  int status() const { return status_; }
  bool is_event_stream() const { return is_event_stream_; }
  bool keep_alive() const { return keep_alive_; }
  // Of answers that are not event streams.
  const std::string& body() const { return body_; }
  const std::string& error() const { return error_; }

 private:
  enum class Step { kHead, kBody, kChunkSize, kChunkData, kChunkEnd, kTrailer, kDone };

  State Fail(std::string error);
  bool ParseHead();
  bool ParseHeader(std::string_view name, std::string_view value);
  // Takes a whole line without its line end from the front of `bytes`; false: not yet there.
  bool TakeLine(std::string_view* bytes, std::string_view* line);
  bool OnChunkSize(std::string_view line);
  bool OnBody(std::string_view piece, OnEvent on_event);
  bool OnEventLine(std::string_view line, OnEvent on_event);

  Step step_ = Step::kHead;
  bool started_ = false;
  int status_ = 0;
  bool is_event_stream_ = false;
  bool keep_alive_ = true;
  bool chunked_ = false;
  bool stopped_ = false;
  int64_t left_ = -1;  // of the body or chunk; -1: until the connection ends
  std::string line_;   // beginning of a line whose end has not come
  std::string head_;
  std::string body_;
  std::string event_line_;
  std::string event_data_;
  bool has_event_data_ = false;
  std::string error_;
};

}  // namespace hgrn2::client
