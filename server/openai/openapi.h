#pragma once

#include <string>

namespace hgrn2 {

// The OpenAPI 3.1 document of the HTTP API, made from the tables that read the requests. Tests hold
// it to the routes: what it says exists, and what exists it says.
std::string OpenApiDocument();

}  // namespace hgrn2
