#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "server/http/http_types.h"

namespace hgrn2 {

// Exact paths to handlers. Immutable once the server runs.
class HttpRouter {
 public:
  // REQUIRES: not added before.
  void Add(std::string_view method, std::string_view path, HttpHandler handler);

  // Runs the handler, or answers 404 or 405 (with Allow).
  void Dispatch(const HttpRequest& request, std::shared_ptr<HttpResponder> responder) const;

  // `path` if it is routed, else "other": bounds the label values of metrics.
  std::string_view PathLabel(std::string_view path) const;

 private:
  using Methods = std::map<std::string, HttpHandler, std::less<>>;
  std::map<std::string, Methods, std::less<>> paths_;
};

}  // namespace hgrn2
