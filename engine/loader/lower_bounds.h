// The gates' lower bounds as the layers use them.
#pragma once

#include <vector>

#include "engine/loader/weights.h"

namespace hgrn2 {

// [L][d]: p = softmax of `raw` [L, d] over the layers, lb[l] = sum of p[1..l], in double. All zero
// if the config has no lower bound (`raw` is then not read).
std::vector<float> LowerBounds(const ModelConfig& config, const TensorView& raw);

}  // namespace hgrn2
