// The page at "/": one static document, compiled into the binary.
#pragma once

#include "server/http/http_router.h"

namespace hgrn2 {

// GET /. Needs no API key: the page has no data of its own, and asks with the key that its user
// types.
void AddPlaygroundRoute(HttpRouter* router);

}  // namespace hgrn2
