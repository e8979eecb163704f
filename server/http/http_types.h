// Requests, responses and handlers of the HTTP server, free of any network library.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hgrn2 {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET"; a HEAD request arrives at handlers as GET
  std::string path;    // without query, as sent (percent-encoded)
  std::string query;
  std::map<std::string, std::string> headers;  // names in lower case; repeated ones joined by ", "
  std::string body;
  int minor_version = 1;  // HTTP/1.x
  bool keep_alive = true;
  std::string id;  // x-request-id: the client's, or one of ours

  // The header's value, or "".
  std::string_view Header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string_view() : std::string_view(found->second);
  }
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpHeaders headers;
};

// What a streamed answer's owner is told. On an I/O thread; must not block.
class HttpStreamListener {
 public:
  virtual ~HttpStreamListener() = default;
  // Everything written so far is with the operating system: the moment to write more. A writer that
  // waits for it sends fewer, larger pieces to a peer that is slow.
  virtual void OnWritten() = 0;
  // The peer has gone, or takes nothing: what is written from now on is dropped.
  virtual void OnPeerGone() = 0;
};

// Answers one request: by Send, or by Begin, any number of Write, Finish. Thread-safe, but one
// answer's calls must not overlap; never blocks. Keeps the connection alive until used up or
// dropped. Dropped unused it answers 500; dropped between Begin and Finish it cuts the connection,
// so that nobody takes a part for the whole.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;

  // Goes out with whatever is sent. Before Send or Begin.
  void AddHeader(std::string name, std::string value) {
    headers_.emplace_back(std::move(name), std::move(value));
  }
  // Called from now until the end of the answer. Once, before Begin.
  virtual void Listen(std::shared_ptr<HttpStreamListener> listener) = 0;
  // A whole answer.
  virtual void Send(HttpResponse response) = 0;
  // The head of a streamed answer; head.body is its first piece.
  virtual void Begin(HttpResponse head) = 0;
  virtual void Write(std::string piece) = 0;
  virtual void Finish() = 0;

 protected:
  HttpHeaders headers_;
};

// Runs on an I/O thread and must not block; the responder may be kept and used later elsewhere.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<HttpResponder>)>;

// A handler that answers at once.
HttpHandler Immediately(std::function<HttpResponse(const HttpRequest&)> answer);

// {"error": {"message", "type", "param", "code"}}, the shape that OpenAI clients understand. Empty
// param and code are null. 429 and 503 carry Retry-After.
HttpResponse ErrorResponse(int status, std::string_view message, std::string_view param = {},
                           std::string_view code = {});

// "Not Found"; "" for a status without a name here.
std::string_view ReasonPhrase(int status);

}  // namespace hgrn2
