#include "server/openai/api_error.h"

#include <string>

#include "base/status.h"

namespace hgrn2 {
namespace {

std::string_view ErrorCode(int status) {
  switch (status) {
    case 404:
      return "model_not_found";
    case 429:
      return "rate_limit_exceeded";
    case 504:
      return "deadline_exceeded";
    default:
      return {};
  }
}

// The frontend's field in the words of the endpoint: "prompts[1]" is "prompt[1]" here.
std::string Param(std::string field, std::string_view prompt_field) {
  if (field == "prompt" || field == "prompts") return std::string(prompt_field);
  if (field.starts_with("prompts[")) return std::string(prompt_field) + field.substr(7);
  return field;
}

}  // namespace

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

HttpResponse ToHttpError(const absl::Status& status, std::string_view prompt_field) {
  const int code = HttpStatusOf(status);
  return ErrorResponse(code, ToStd(status.message()), Param(FieldOf(status), prompt_field),
                       ErrorCode(code));
}

}  // namespace hgrn2
