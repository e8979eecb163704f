#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "server/options.h"

namespace hgrn2 {

// The backend of one --device entry. auto is the first CUDA device where the server was built with
// CUDA and one is present, else the CPU. INVALID_ARGUMENT: a CUDA device asked of a build without.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const DeviceSpec& device,
                                                     const ModelWeights& weights,
                                                     const ServerOptions& options);

}  // namespace hgrn2
