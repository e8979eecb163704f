#include "server/playground/playground.h"

#include <fmt/format.h>

#include <random>
#include <string>
#include <string_view>

namespace hgrn2 {

// Generated from index.html.
extern const char* const kPlaygroundPage;
extern const size_t kPlaygroundPageBytes;

namespace {

// Stands in the page where the script's and the style's nonce belong.
constexpr std::string_view kPlaceholder = "__NONCE__";

std::string MakeNonce() {
  thread_local std::random_device device;
  std::string nonce;
  for (int i = 0; i < 4; ++i) nonce += fmt::format("{:08x}", device());
  return nonce;
}

// Only this page's own style and script, and requests to this server: whatever a model writes or a
// link carries cannot become code.
std::string ContentSecurityPolicy(const std::string& nonce) {
  return fmt::format(
      "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
      "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      nonce);
}

HttpResponse Page() {
  const std::string nonce = MakeNonce();
  HttpResponse response;
  response.content_type = "text/html; charset=utf-8";
  response.body.assign(kPlaygroundPage, kPlaygroundPageBytes);
  for (size_t at = 0; (at = response.body.find(kPlaceholder, at)) != std::string::npos;) {
    response.body.replace(at, kPlaceholder.size(), nonce);
  }
  response.headers = {{"content-security-policy", ContentSecurityPolicy(nonce)},
                      {"cache-control", "no-store"},
                      {"x-content-type-options", "nosniff"},
                      {"referrer-policy", "no-referrer"},
                      {"cross-origin-opener-policy", "same-origin"}};
  return response;
}

}  // namespace

void AddPlaygroundRoute(HttpRouter* router) {
  router->Add("GET", "/", Immediately([](const HttpRequest&) { return Page(); }));
}

}  // namespace hgrn2
