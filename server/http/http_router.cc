#include "server/http/http_router.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/check.h"
#include "server/request_id.h"

namespace hgrn2 {
namespace {

// "GET, HEAD, OPTIONS": what a path takes.
template <typename Methods>
std::string AllowedMethods(const Methods& methods) {
  std::string allowed;
  for (const auto& [method, unused] : methods) {
    if (!allowed.empty()) allowed += ", ";
    allowed += method;
    if (method == "GET") allowed += ", HEAD";
  }
  return allowed + ", OPTIONS";
}

// A client's id goes into logs and headers.
std::string RequestId(const HttpRequest& request) {
  const std::string_view id = request.Header("x-request-id");
  const bool usable =
      !id.empty() && id.size() <= 256 &&
      std::all_of(id.begin(), id.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  return usable ? std::string(id) : MakeRequestId();
}

}  // namespace

HttpHandler Immediately(std::function<HttpResponse(const HttpRequest&)> answer) {
  return [answer = std::move(answer)](const HttpRequest& request,
                                      std::shared_ptr<HttpResponder> responder) {
    responder->Send(answer(request));
  };
}

void HttpRouter::Add(std::string_view method, std::string_view path, HttpHandler handler,
                     Access access) {
  const bool added = paths_[std::string(path)]
                         .emplace(std::string(method), Route{std::move(handler), access})
                         .second;
  HGRN2_CHECK(added, path);
}

HttpRouter::Paths::const_iterator HttpRouter::Find(std::string_view path) const {
  const auto exact = paths_.find(path);
  if (exact != paths_.end() && !exact->first.ends_with('}')) return exact;
  return std::find_if(paths_.begin(), paths_.end(), [&](const auto& entry) {
    const std::string_view pattern = entry.first;
    if (!pattern.ends_with('}')) return false;
    const std::string_view prefix = pattern.substr(0, pattern.rfind('{'));
    return path.size() > prefix.size() && path.starts_with(prefix);
  });
}

void HttpRouter::AnswerOptions(const HttpRequest& request, const Methods* methods,
                               HttpResponder& responder) const {
  HttpResponse response;
  response.status = 204;
  response.content_type.clear();
  const std::string allowed =
      methods == nullptr ? "GET, HEAD, POST, DELETE, OPTIONS" : AllowedMethods(*methods);
  response.headers = gate_->PreflightHeaders(request, allowed);
  response.headers.emplace_back("Allow", allowed);
  responder.Send(std::move(response));
}

void HttpRouter::Dispatch(HttpRequest request, std::shared_ptr<HttpResponder> responder) const {
  request.id = RequestId(request);
  responder->AddHeader("x-request-id", request.id);
  for (auto& [name, value] : gate_->CorsHeaders(request)) responder->AddHeader(name, value);
  if (request.path == "*") return AnswerOptions(request, nullptr, *responder);
  const auto found = Find(request.path);
  if (found == paths_.end()) {
    return responder->Send(ErrorResponse(404, fmt::format("there is no '{}' here", request.path)));
  }
  const Methods& methods = found->second;
  if (request.method == "OPTIONS") return AnswerOptions(request, &methods, *responder);
  const auto route = methods.find(request.method);
  if (route == methods.end()) {
    const std::string allowed = AllowedMethods(methods);
    HttpResponse response = ErrorResponse(
        405, fmt::format("'{}' takes {}, not {}", request.path, allowed, request.method));
    response.headers.emplace_back("Allow", allowed);
    return responder->Send(std::move(response));
  }
  if (route->second.access == Access::kGuarded && !gate_->Authorized(request)) {
    HttpResponse response = ErrorResponse(
        401, "a valid API key is needed: 'Authorization: Bearer KEY'", {}, "invalid_api_key");
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return responder->Send(std::move(response));
  }
  route->second.handler(std::move(request), std::move(responder));
}

std::string_view HttpRouter::PathLabel(std::string_view path) const {
  const auto found = Find(path);
  return found == paths_.end() ? std::string_view("other") : std::string_view(found->first);
}

std::vector<std::pair<std::string, std::string>> HttpRouter::Routes() const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [path, methods] : paths_) {
    for (const auto& [method, unused] : methods) out.emplace_back(method, path);
  }
  return out;
}

std::string PathTail(std::string_view pattern, std::string_view path) {
  path.remove_prefix(std::min(path.size(), pattern.rfind('{')));
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    unsigned value = 0;
    const std::string_view digits = path.substr(i + 1, 2);
    const bool escaped =
        path[i] == '%' && digits.size() == 2 &&
        std::from_chars(digits.data(), digits.data() + 2, value, 16).ptr == digits.data() + 2;
    out += escaped ? static_cast<char>(value) : path[i];
    if (escaped) i += 2;
  }
  return out;
}

}  // namespace hgrn2
