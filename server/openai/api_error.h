#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "server/http/http_types.h"

namespace hgrn2 {

// A status as an error in OpenAI's shape, with the HTTP code that clients act on: 400 with the
// field in `param`, 404 for the model, 429 and 503 with Retry-After, 504 for a deadline.
// `prompt_field` is what the endpoint calls the prompt ("messages").
HttpResponse ToHttpError(const absl::Status& status, std::string_view prompt_field = "prompt");

// The HTTP code of a status.
int HttpStatusOf(const absl::Status& status);

}  // namespace hgrn2
