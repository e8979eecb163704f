// A backend without a model: the next token is a hash of the tokens a slot has seen and of its
// seed, so that any mix-up of states, tokens or positions changes the output. Checks every rule of
// the Backend contract and counts violations instead of hiding them.
#pragma once

#include <deque>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/backend/backend.h"

namespace hgrn2::testing {

inline constexpr int32_t kFakeVocab = 1000;

// The token that follows `tokens` (all that were fed) in the fake model.
int32_t FakeNextToken(const std::vector<int32_t>& tokens, uint64_t seed, uint32_t position);

class FakeBackend final : public Backend {
 public:
  struct Options {
    int32_t num_slots = 4;
    int32_t max_batched_tokens = 64;
    int32_t pipeline_depth = 1;
    FakeClock* clock = nullptr;  // advanced by step_time at each Collect
    Duration step_time = std::chrono::milliseconds(1);
    Duration real_step_time = Duration::zero();  // Collect sleeps that long
    int64_t fail_at_step = -1;                   // Enqueue number that fails
    // The text generated after a prompt, over and over; empty: FakeNextToken. Tokens are its bytes.
    std::string script;
  };
  explicit FakeBackend(Options options);

  const BackendInfo& info() const override { return info_; }
  absl::Status ConfigureSlot(int32_t slot, const SlotSampling& sampling) override;
  absl::Status Enqueue(const StepBatch& batch) override;
  absl::Status Collect(StepResult* result) override;
  absl::Status CopyState(int32_t from_slot, int32_t to_slot) override;
  absl::StatusOr<StateBlob> SaveState(int32_t slot) override;
  absl::Status RestoreState(int32_t slot, const StateBlob& blob) override;
  absl::StatusOr<std::vector<float>> ForwardLogits(const StepBatch& batch) override;

  // Written by the engine thread; read it when the engine is idle.
  std::vector<std::string> violations;
  int64_t num_steps = 0;
  int32_t max_step_tokens = 0;
  int32_t max_step_sequences = 0;
  int64_t num_saves = 0, num_restores = 0, num_copies = 0;

 private:
  struct Slot {
    std::vector<int32_t> seen;  // the whole "state"
    bool live = false;          // reset or restored at least once
    SlotSampling sampling;
    int32_t last_sampled = -1;
  };
  void Violate(std::string what) { violations.push_back(std::move(what)); }
  SequenceResult Advance(const StepBatch& batch, const StepSequence& sequence);

  int32_t Next(const Slot& slot) const;

  const Options options_;
  BackendInfo info_;
  std::vector<Slot> slots_;
  std::deque<StepResult> pending_;
  std::vector<std::set<int32_t>> pending_samples_;  // slots sampled per pending step
};

}  // namespace hgrn2::testing
