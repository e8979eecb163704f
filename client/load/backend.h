// The ways to a server that `load` knows, chosen by its flags.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "client/load/load_options.h"
#include "client/load/transport.h"

namespace hgrn2::client {

// REQUIRES: options resolved.
std::unique_ptr<Transport> MakeTransport(const LoadOptions& options);

// Fills in, from the first target, what random prompts need to know of the model and `options` do
// not say: its name, the size of its vocabulary, tokens to avoid.
absl::Status AskModel(LoadOptions* options);

}  // namespace hgrn2::client
