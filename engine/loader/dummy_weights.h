// Random weights of a given shape, for benchmarks and load tests without a checkpoint.
#pragma once

#include "absl/status/statusor.h"
#include "engine/loader/weights.h"

namespace hgrn2 {

// The same bytes for the same arguments on every machine and with any number of threads: element i
// of a tensor is a function of (seed, tensor, i). RESOURCE_EXHAUSTED if memory does not suffice.
// REQUIRES: dtype is kF32, kF16 or kBF16.
absl::StatusOr<ModelWeights> TryMakeDummyWeights(const ModelConfig& config, DType dtype,
                                                 uint64_t seed);

}  // namespace hgrn2
