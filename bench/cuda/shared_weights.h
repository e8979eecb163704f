// Weights of a shape for benchmarks that load in seconds: every tensor is a view of one block of
// random numbers. Speed does not depend on the values as long as they are not all alike.
#pragma once

#include <string_view>

#include "engine/loader/weights.h"

namespace hgrn2::bench {

// "1.3b" or "2.9b". Aborts on another name.
ModelConfig NamedShape(std::string_view name);
ModelWeights SharedRandomWeights(const ModelConfig& config);

}  // namespace hgrn2::bench
