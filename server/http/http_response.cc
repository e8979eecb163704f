#include <nlohmann/json.hpp>

#include "server/http/http_types.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

// As OpenAI's clients know them.
const char* ErrorType(int status) {
  if (status == 429) return "rate_limit_error";
  if (status == 503) return "service_unavailable_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

}  // namespace

HttpResponse ErrorResponse(int status, std::string_view message, std::string_view param,
                           std::string_view code) {
  const auto text_or_null = [](std::string_view text) {
    return text.empty() ? nlohmann::json() : nlohmann::json(SafeUtf8(text, 256));
  };
  HttpResponse response;
  response.status = status;
  const nlohmann::json error = {{"message", SafeUtf8(message, 1024)},
                                {"type", ErrorType(status)},
                                {"param", text_or_null(param)},
                                {"code", text_or_null(code)}};
  response.body = nlohmann::json({{"error", error}}).dump() + "\n";
  if (status == 429 || status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

}  // namespace hgrn2
