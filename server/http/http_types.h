// Requests, responses and handlers of the HTTP server, free of any HTTP library.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hgrn2 {

struct HttpRequest {
  std::string method;  // "GET"; a HEAD request arrives as GET
  std::string path;    // without query
  std::string query;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

// Answers one request. Thread-safe; keeps the connection alive until used or dropped. A responder
// that is dropped unused answers 500.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;
  // The first call counts.
  virtual void Send(HttpResponse response) = 0;
};

// Runs on the I/O thread and must not block; the responder may be kept and used later elsewhere.
using HttpHandler = std::function<void(const HttpRequest&, std::shared_ptr<HttpResponder>)>;

// A handler that answers at once.
HttpHandler Immediately(std::function<HttpResponse(const HttpRequest&)> answer);

// {"error": {"message", "type", "param", "code"}}, the shape that OpenAI clients understand.
HttpResponse ErrorResponse(int status, std::string_view message);

}  // namespace hgrn2
