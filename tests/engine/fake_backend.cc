#include "tests/engine/fake_backend.h"

#include <algorithm>
#include <cstring>
#include <thread>

namespace hgrn2::testing {

int32_t FakeNextToken(const std::vector<int32_t>& tokens, uint64_t seed, uint32_t position) {
  uint64_t hash = seed * 0x9E3779B97F4A7C15ull + position;
  for (const int32_t token : tokens) hash = PositionKey(hash, static_cast<uint32_t>(token));
  return static_cast<int32_t>(hash % kFakeVocab);
}

FakeBackend::FakeBackend(Options options) : options_(options), slots_(options.num_slots) {
  info_.device = "fake";
  info_.num_slots = options.num_slots;
  info_.max_batched_tokens = options.max_batched_tokens;
  info_.pipeline_depth = options.pipeline_depth;
  info_.state_bytes_per_sequence = 8;
}

absl::Status FakeBackend::ConfigureSlot(int32_t slot, const SlotSampling& sampling) {
  if (slot < 0 || slot >= options_.num_slots) Violate("ConfigureSlot: bad slot");
  slots_.at(slot).sampling = sampling;
  return absl::OkStatus();
}

int32_t FakeBackend::Next(const Slot& slot) const {
  const SlotSampling& sampling = slot.sampling;
  if (!options_.script.empty()) {
    return static_cast<uint8_t>(options_.script[sampling.num_generated % options_.script.size()]);
  }
  const uint64_t seed = sampling.scalars.temperature == 0 ? 0 : sampling.scalars.seed;
  return FakeNextToken(slot.seen, seed, sampling.num_generated);
}

SequenceResult FakeBackend::Advance(const StepBatch& batch, const StepSequence& sequence) {
  SequenceResult result;
  Slot& slot = slots_.at(sequence.slot);
  if (sequence.reset_state) {
    slot.seen.clear();
    slot.live = true;
  }
  if (!slot.live) Violate("a slot was used before it was reset or restored");
  if (sequence.num_tokens < 1) Violate("a sequence without tokens");
  for (int32_t i = 0; i < sequence.num_tokens; ++i) {
    const size_t at = sequence.token_begin + i;
    int32_t token = batch.tokens.at(at);
    if (sequence.token_on_device) {
      if (sequence.num_tokens != 1 || slot.last_sampled < 0) Violate("token_on_device misused");
      token = slot.last_sampled;
    }
    if (token < 0 || token >= kFakeVocab) Violate("token outside the vocabulary");
    slot.seen.push_back(token);
    if (sequence.score && batch.score_targets.at(at) >= 0) {
      TokenScore score;
      score.token_id = batch.score_targets[at];
      score.rank = FakeNextToken(slot.seen, 0, 0) == score.token_id ? 1 : 2;
      score.logprob = -0.001f * FakeNextToken(slot.seen, score.token_id, 0);
      result.scores.push_back(score);
    }
  }
  if (sequence.sample) {
    SlotSampling& sampling = slot.sampling;
    int32_t token = Next(slot);
    std::vector<int32_t> banned = sequence.banned_token_ids;
    banned.insert(banned.end(), sampling.banned_token_ids.begin(), sampling.banned_token_ids.end());
    if (sampling.num_generated < sampling.min_tokens) {
      banned.insert(banned.end(), sampling.min_tokens_bans.begin(), sampling.min_tokens_bans.end());
    }
    while (std::find(banned.begin(), banned.end(), token) != banned.end()) {
      token = (token + 1) % kFakeVocab;
    }
    sampling.num_generated += 1;
    slot.last_sampled = token;
    result.sampled.token_id = token;
    if (sampling.scalars.logprobs >= 0) {
      result.sampled.logprob = -1.5f;
      result.sampled.rank = 1;
      result.sampled.top.assign(sampling.scalars.logprobs, TopToken{token, -1.5f});
    }
  }
  return result;
}

absl::Status FakeBackend::Enqueue(const StepBatch& batch) {
  if (num_steps++ == options_.fail_at_step) return absl::InternalError("injected device error");
  if (static_cast<int32_t>(pending_.size()) >= options_.pipeline_depth) Violate("pipeline overrun");
  if (static_cast<int32_t>(batch.tokens.size()) > options_.max_batched_tokens) {
    Violate("token budget overrun");
  }
  if (!batch.score_targets.empty() && batch.score_targets.size() != batch.tokens.size()) {
    Violate("score_targets do not match tokens");
  }
  StepResult result;
  std::set<int32_t> used;
  size_t tokens = 0;
  for (const StepSequence& sequence : batch.sequences) {
    if (!used.insert(sequence.slot).second) Violate("a slot twice in one batch");
    if (sequence.token_begin != static_cast<int32_t>(tokens)) Violate("tokens are not packed");
    tokens += sequence.num_tokens;
    result.sequences.push_back(Advance(batch, sequence));
  }
  if (tokens != batch.tokens.size()) Violate("tokens without a sequence");
  max_step_tokens = std::max(max_step_tokens, static_cast<int32_t>(tokens));
  max_step_sequences = std::max(max_step_sequences, static_cast<int32_t>(batch.sequences.size()));
  pending_.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status FakeBackend::Collect(StepResult* result) {
  if (pending_.empty()) return absl::InternalError("nothing pending");
  if (options_.clock != nullptr) options_.clock->Advance(options_.step_time);
  if (options_.real_step_time > Duration::zero()) {
    std::this_thread::sleep_for(options_.real_step_time);
  }
  *result = std::move(pending_.front());
  pending_.pop_front();
  return absl::OkStatus();
}

absl::Status FakeBackend::CopyState(int32_t from_slot, int32_t to_slot) {
  ++num_copies;
  if (!slots_.at(from_slot).live) Violate("CopyState of a slot without a state");
  if (from_slot == to_slot) Violate("CopyState of a slot to itself");
  Slot& target = slots_.at(to_slot);
  target.seen = slots_.at(from_slot).seen;
  target.live = true;
  target.last_sampled = -1;
  return absl::OkStatus();
}

absl::StatusOr<StateBlob> FakeBackend::SaveState(int32_t slot) {
  ++num_saves;
  if (!slots_.at(slot).live) Violate("SaveState of a slot without a state");
  StateBlob blob;
  const std::vector<int32_t>& seen = slots_.at(slot).seen;
  blob.state.resize(seen.size() * sizeof(int32_t));
  if (!seen.empty()) std::memcpy(blob.state.data(), seen.data(), blob.state.size());
  return blob;
}

absl::Status FakeBackend::RestoreState(int32_t slot, const StateBlob& blob) {
  ++num_restores;
  Slot& target = slots_.at(slot);
  target.seen.resize(blob.state.size() / sizeof(int32_t));
  if (!blob.state.empty()) std::memcpy(target.seen.data(), blob.state.data(), blob.state.size());
  target.live = true;
  target.last_sampled = -1;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> FakeBackend::ForwardLogits(const StepBatch&) {
  return absl::UnimplementedError("the fake model has no logits");
}

}  // namespace hgrn2::testing
