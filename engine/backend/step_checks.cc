#include "engine/backend/step_checks.h"

#include "base/status.h"

namespace hgrn2 {

absl::Status CheckSlot(int32_t slot, int32_t num_slots) {
  if (slot >= 0 && slot < num_slots) return absl::OkStatus();
  return InvalidArgument("slot", "must be in [0, {}), got {}", num_slots, slot);
}

absl::Status CheckBatch(const StepBatch& batch, int32_t num_slots, int64_t max_tokens) {
  int64_t tokens = 0;
  for (const StepSequence& s : batch.sequences) {
    RETURN_IF_ERROR(CheckSlot(s.slot, num_slots));
    const int64_t end = int64_t{s.token_begin} + s.num_tokens;
    if (s.num_tokens < 1 || s.token_begin < 0 || end > static_cast<int64_t>(batch.tokens.size())) {
      return InvalidArgument("tokens", "sequence in slot {} feeds [{}, {}) of {}", s.slot,
                             s.token_begin, end, batch.tokens.size());
    }
    tokens += s.num_tokens;
  }
  if (tokens > max_tokens) {
    return InvalidArgument("tokens", "{} exceed the limit of {}", tokens, max_tokens);
  }
  return absl::OkStatus();
}

}  // namespace hgrn2
