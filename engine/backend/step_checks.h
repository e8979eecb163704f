// What every backend checks of its callers' slots and batches before it touches memory.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "engine/backend/backend.h"

namespace hgrn2 {

// INVALID_ARGUMENT unless slot is in [0, num_slots).
absl::Status CheckSlot(int32_t slot, int32_t num_slots);

// INVALID_ARGUMENT for a slot out of range, tokens that are not in the batch, or more than
// max_tokens of them.
absl::Status CheckBatch(const StepBatch& batch, int32_t num_slots, int64_t max_tokens);

}  // namespace hgrn2
