// Loss on the embedded model's validation data.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/loader/weights.h"

namespace hgrn2::testing {

struct ValidationSet {
  std::vector<std::vector<int32_t>> rows;  // each predicts its tokens from the second on
};
// tests/data/eval/valid_ids.npy. Aborts if it cannot be read.
ValidationSet LoadValidationSet();

// Mean negative log-likelihood (natural log) per predicted token. One row per slot at a time, in
// steps of max_batched_tokens.
double BackendLoss(Backend* backend, const std::vector<std::vector<int32_t>>& rows);
// The same with all rows in one step. REQUIRES: a slot for each, and room for all their tokens.
double PackedLoss(Backend* backend, const std::vector<std::vector<int32_t>>& rows);
double OracleLoss(const ModelWeights& weights, const std::vector<int32_t>& row);

}  // namespace hgrn2::testing
