#include "server/http/http_router.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "server/utf8.h"

namespace hgrn2 {

HttpHandler Immediately(std::function<HttpResponse(const HttpRequest&)> answer) {
  return [answer = std::move(answer)](const HttpRequest& request,
                                      std::shared_ptr<HttpResponder> responder) {
    responder->Send(answer(request));
  };
}

HttpResponse ErrorResponse(int status, std::string_view message) {
  const char* const type = status == 429   ? "rate_limit_error"
                           : status < 500  ? "invalid_request_error"
                           : status == 503 ? "service_unavailable_error"
                                           : "server_error";
  HttpResponse response;
  response.status = status;
  const nlohmann::json error = {
      {"message", SafeUtf8(message, 1024)}, {"type", type}, {"param", nullptr}, {"code", status}};
  response.body = nlohmann::json({{"error", error}}).dump() + "\n";
  return response;
}

void HttpRouter::Add(std::string_view method, std::string_view path, HttpHandler handler) {
  const bool added =
      paths_[std::string(path)].emplace(std::string(method), std::move(handler)).second;
  HGRN2_CHECK(added, path);
}

void HttpRouter::Dispatch(const HttpRequest& request,
                          std::shared_ptr<HttpResponder> responder) const {
  const auto methods = paths_.find(request.path);
  if (methods == paths_.end()) {
    responder->Send(ErrorResponse(404, fmt::format("there is no '{}' here", request.path)));
    return;
  }
  const auto handler = methods->second.find(request.method);
  if (handler != methods->second.end()) return handler->second(request, std::move(responder));
  std::string allowed;
  for (const auto& [method, unused] : methods->second) {
    allowed += (allowed.empty() ? "" : ", ") + method;
  }
  HttpResponse response = ErrorResponse(
      405, fmt::format("'{}' takes {}, not {}", request.path, allowed, request.method));
  response.headers.emplace_back("Allow", allowed);
  responder->Send(std::move(response));
}

std::string_view HttpRouter::PathLabel(std::string_view path) const {
  const auto found = paths_.find(path);
  return found == paths_.end() ? std::string_view("other") : std::string_view(found->first);
}

}  // namespace hgrn2
