// The sampling state of one slot's sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/backend/backend.h"
#include "kernels/cpu/sampler.h"

namespace hgrn2 {

// Thread-compatible: Sample is const but for its scratch, so rows may be sampled in parallel;
// Append follows on one thread.
class CpuSlotSampler {
 public:
  void Configure(const SlotSampling& sampling);

  const SamplingScalars& scalars() const { return scalars_; }
  int32_t last_token() const { return last_token_; }

  // The next token from a padded row of logits.
  int32_t Sample(const float* logits, int vocab, std::span<const int32_t> step_bans,
                 cpu::SamplerScratch* scratch) const;
  // Records a sampled token.
  void Append(int32_t token);

 private:
  void Count(int32_t token, int generated);

  SamplingScalars scalars_;
  uint32_t num_generated_ = 0;
  uint32_t min_tokens_ = 0;
  int32_t last_token_ = 0;
  std::vector<int32_t> min_tokens_bans_;
  std::vector<int32_t> banned_;
  std::vector<int32_t> allowed_;
  std::vector<cpu::TokenBias> biases_;
  bool has_penalties_ = false;
  std::vector<cpu::PenalizedToken> penalized_;
  absl::flat_hash_map<int32_t, int32_t> penalized_index_;  // token id to position in penalized_
};

}  // namespace hgrn2
