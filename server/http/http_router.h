#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/http_gate.h"
#include "server/http/http_types.h"

namespace hgrn2 {

// Paths to handlers, with what every request shares: ids, API keys, CORS, OPTIONS. Immutable once
// the server runs.
class HttpRouter {
 public:
  enum class Access { kOpen, kGuarded };  // guarded: needs an API key, if there are any

  explicit HttpRouter(HttpGateOptions gate = {})
      : gate_(std::make_shared<const HttpGate>(std::move(gate))) {}

  // A path that ends in a segment in braces ("/v1/models/{model}") also stands for everything that
  // goes on there, slashes included. REQUIRES: not added before.
  void Add(std::string_view method, std::string_view path, HttpHandler handler,
           Access access = Access::kOpen);

  // Runs the handler, or answers 401, 404 or 405 (with Allow). The answer carries x-request-id.
  void Dispatch(HttpRequest request, std::shared_ptr<HttpResponder> responder) const;

  // The path it was added as, if `path` is routed, else "other": bounds the label values of
  // metrics.
  std::string_view PathLabel(std::string_view path) const;

  // Every method and path, for the API's description.
  std::vector<std::pair<std::string, std::string>> Routes() const;

 private:
  struct Route {
    HttpHandler handler;
    Access access;
  };
  using Methods = std::map<std::string, Route, std::less<>>;
  using Paths = std::map<std::string, Methods, std::less<>>;

  Paths::const_iterator Find(std::string_view path) const;
  void AnswerOptions(const HttpRequest& request, const Methods* methods,
                     HttpResponder& responder) const;

  std::shared_ptr<const HttpGate> gate_;
  Paths paths_;
};

// The part of `path` that stands for the last segment in braces of `pattern`, percent-decoded.
std::string PathTail(std::string_view pattern, std::string_view path);

}  // namespace hgrn2
