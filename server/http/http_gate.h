// Who may ask: API keys, and the origins of web pages (CORS).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/http/http_types.h"

namespace hgrn2 {

struct HttpGateOptions {
  std::vector<std::string> api_keys;            // none: everybody may ask
  std::vector<std::string> cors_allow_origins;  // none: no CORS headers; "*": any
};

// Immutable.
class HttpGate {
 public:
  explicit HttpGate(HttpGateOptions options = {}) : options_(std::move(options)) {}

  // Whether the request carries one of the keys as "Authorization: Bearer KEY", or none is needed.
  bool Authorized(const HttpRequest& request) const;
  // What a page of an allowed origin needs to read the answer; empty otherwise.
  HttpHeaders CorsHeaders(const HttpRequest& request) const;
  // Those of the answer to a preflight request (OPTIONS), besides CorsHeaders.
  HttpHeaders PreflightHeaders(const HttpRequest& request, const std::string& methods) const;

 private:
  const HttpGateOptions options_;
};

// Items of a comma-separated list, trimmed, without empty ones.
std::vector<std::string> SplitList(std::string_view list);

// The keys of `list` (comma-separated) and of the lines of `file`, unless it is "".
// INVALID_ARGUMENT: no file, none in it, or a key that no header can carry. Errors name no key, but
// `flag`, where the list came from; the file's flag is that and "-file".
absl::StatusOr<std::vector<std::string>> LoadApiKeys(std::string_view flag, std::string_view list,
                                                     const std::string& file);

// Whether "Bearer KEY" has one of the keys. Takes the same time wherever a wrong key differs from a
// right one.
bool HasApiKey(std::string_view authorization, const std::vector<std::string>& keys);

}  // namespace hgrn2
