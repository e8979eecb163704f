// The one list of a model's tensors: names in the file, shapes, and where their views go. Loading,
// random weights and the hash all walk it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/loader/weights.h"

namespace hgrn2 {

enum class TensorRole { kEmbedding, kHead, kNorm, kProjection, kConv, kLowerBounds };

struct TensorSlot {
  std::string name;
  std::vector<int64_t> shape;
  TensorRole role;
  TensorView* view;  // not owned
};

// Every tensor that a model of weights->config has, in a fixed order. Sizes weights->layers; the
// slots point into *weights and, for the raw lower bounds, to *lower_bounds.
std::vector<TensorSlot> TensorSlots(ModelWeights* weights, TensorView* lower_bounds);

}  // namespace hgrn2
