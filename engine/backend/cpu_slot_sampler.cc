#include "engine/backend/cpu_slot_sampler.h"

namespace hgrn2 {

void CpuSlotSampler::Configure(const SlotSampling& sampling) {
  scalars_ = sampling.scalars;
  num_generated_ = sampling.num_generated;
  min_tokens_ = sampling.min_tokens;
  last_token_ = sampling.generated_tokens.empty() ? 0 : sampling.generated_tokens.back();
  min_tokens_bans_ = sampling.min_tokens_bans;
  banned_ = sampling.banned_token_ids;
  allowed_ = sampling.allowed_token_ids;
  biases_.clear();
  for (const auto& [token, bias] : sampling.logit_bias) biases_.push_back({token, bias});
  penalized_.clear();
  penalized_index_.clear();
  has_penalties_ = sampling.HasPenalties();
  if (!has_penalties_) return;
  for (const int32_t token : sampling.prompt_tokens) Count(token, 0);
  for (const int32_t token : sampling.generated_tokens) Count(token, 1);
}

void CpuSlotSampler::Count(int32_t token, int generated) {
  const auto [it, added] =
      penalized_index_.try_emplace(token, static_cast<int32_t>(penalized_.size()));
  if (added) penalized_.push_back({token, 0});
  penalized_[it->second].generated += generated;
}

int32_t CpuSlotSampler::Sample(const float* logits, int vocab, std::span<const int32_t> step_bans,
                               cpu::SamplerScratch* scratch) const {
  cpu::SampleParams p;
  p.logits = logits;
  p.vocab = vocab;
  p.scalars = scalars_;
  p.position = num_generated_;
  p.allowed = allowed_;
  p.banned[0] = banned_;
  p.banned[1] = step_bans;
  if (num_generated_ < min_tokens_) p.banned[2] = min_tokens_bans_;
  p.biases = biases_;
  p.penalized = penalized_;
  p.scratch = scratch;
  return cpu::SampleToken(p);
}

void CpuSlotSampler::Append(int32_t token) {
  ++num_generated_;
  last_token_ = token;
  if (has_penalties_) Count(token, 1);
}

}  // namespace hgrn2
