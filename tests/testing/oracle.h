// The fp64 reference model over weights as the loader gives them.
#pragma once

#include "engine/loader/weights.h"
#include "kernels/reference/hgrn2_reference.h"

namespace hgrn2::testing {

// Copies every tensor to float.
reference::Model MakeOracle(const ModelWeights& weights);

}  // namespace hgrn2::testing
