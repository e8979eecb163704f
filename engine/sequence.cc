#include "engine/sequence.h"

#include <algorithm>

#include "base/check.h"

namespace hgrn2 {

ActiveRequest::ActiveRequest(RequestHandle handle, EngineRequest request, TimePoint now)
    : handle(handle), spec(std::move(request)), submitted(now) {
  std::sort(spec.stop_token_ids.begin(), spec.stop_token_ids.end());
  has_multi_token_bad_words = std::any_of(spec.bad_words.begin(), spec.bad_words.end(),
                                          [](const auto& word) { return word.size() > 1; });
}

namespace {

std::unique_ptr<Sequence> NewSequence(ActiveRequest& request, SequenceKind kind, int32_t index) {
  auto sequence = std::make_unique<Sequence>();
  sequence->request = &request;
  sequence->kind = kind;
  sequence->index = index;
  return sequence;
}

size_t NumBranches(const EngineRequest& spec) {
  return spec.continuations.empty() ? static_cast<size_t>(spec.num_choices)
                                    : spec.continuations.size();
}

// A choice or continuation that begins by feeding `context`.
std::unique_ptr<Sequence> Branch(ActiveRequest& request, int32_t index,
                                 std::vector<int32_t> context) {
  const EngineRequest& spec = request.spec;
  if (spec.continuations.empty()) {
    auto sequence = NewSequence(request, SequenceKind::kChoice, index);
    sequence->feed = std::move(context);
    return sequence;
  }
  auto sequence = NewSequence(request, SequenceKind::kContinuation, index);
  const std::vector<int32_t>& continuation = spec.continuations[index];
  sequence->targets.assign(context.size() - 1, -1);
  sequence->targets.insert(sequence->targets.end(), continuation.begin(), continuation.end());
  sequence->feed = std::move(context);
  sequence->feed.insert(sequence->feed.end(), continuation.begin(), continuation.end() - 1);
  return sequence;
}

// Targets that score every token of the prompt but the first, for `feed` a prefix of it.
std::vector<int32_t> PromptTargets(const std::vector<int32_t>& prompt, size_t feed_size) {
  std::vector<int32_t> targets(prompt.begin() + 1, prompt.end());
  targets.resize(feed_size, -1);
  return targets;
}

}  // namespace

std::vector<std::unique_ptr<Sequence>> FirstSequences(ActiveRequest& request) {
  const EngineRequest& spec = request.spec;
  HGRN2_CHECK(!spec.prompt.empty() && NumBranches(spec) >= 1 && spec.max_tokens >= 1);
  std::vector<std::unique_ptr<Sequence>> sequences;
  if (NumBranches(spec) == 1) {
    sequences.push_back(Branch(request, 0, spec.prompt));
    if (spec.continuations.empty() && spec.prompt_logprobs >= 0) {
      sequences[0]->targets = PromptTargets(spec.prompt, spec.prompt.size());
    }
  } else if (spec.prompt.size() == 1) {
    return BranchSequences(request);
  } else {
    auto prefix = NewSequence(request, SequenceKind::kPrefix, 0);
    prefix->feed.assign(spec.prompt.begin(), spec.prompt.end() - 1);
    if (spec.prompt_logprobs >= 0) {
      prefix->targets = PromptTargets(spec.prompt, prefix->feed.size());
    }
    sequences.push_back(std::move(prefix));
  }
  return sequences;
}

std::vector<std::unique_ptr<Sequence>> BranchSequences(ActiveRequest& request) {
  std::vector<std::unique_ptr<Sequence>> branches;
  for (size_t i = 0; i < NumBranches(request.spec); ++i) {
    branches.push_back(Branch(request, static_cast<int32_t>(i), {request.spec.prompt.back()}));
  }
  return branches;
}

SlotSampling MakeSlotSampling(const Sequence& sequence) {
  const EngineRequest& spec = sequence.request->spec;
  SlotSampling sampling;
  sampling.scalars = spec.sampling;
  sampling.scalars.seed = ChoiceSeed(spec.sampling.seed, sequence.index);
  sampling.num_generated = static_cast<uint32_t>(sequence.generated.size());
  sampling.min_tokens = spec.min_tokens;
  if (spec.min_tokens > 0) sampling.min_tokens_bans = spec.stop_token_ids;
  sampling.logit_bias = spec.logit_bias;
  sampling.allowed_token_ids = spec.allowed_token_ids;
  for (const std::vector<int32_t>& word : spec.bad_words) {
    if (word.size() == 1) sampling.banned_token_ids.push_back(word[0]);
  }
  if (sampling.HasPenalties()) {
    sampling.prompt_tokens = spec.prompt;
    sampling.generated_tokens = sequence.generated;
  }
  return sampling;
}

namespace {

// Last tokens of the bad words whose beginning the sequence ends with.
void BanWordEnds(const Sequence& sequence, std::vector<int32_t>* banned) {
  const std::vector<int32_t>& tokens = sequence.generated;
  for (const std::vector<int32_t>& word : sequence.request->spec.bad_words) {
    const size_t stem = word.size() - 1;
    if (stem == 0 || stem > tokens.size()) continue;
    if (std::equal(word.begin(), word.end() - 1, tokens.end() - stem))
      banned->push_back(word.back());
  }
}

}  // namespace

void AppendTokens(const PlanEntry& entry, Sequence& sequence, StepSequence* step,
                  StepBatch* batch) {
  step->token_begin = static_cast<int32_t>(batch->tokens.size());
  step->num_tokens = entry.num_tokens;
  if (entry.prefill) {
    const auto begin = sequence.feed.begin() + sequence.fed;
    batch->tokens.insert(batch->tokens.end(), begin, begin + entry.num_tokens);
    step->sample = entry.ends_prefill && sequence.kind == SequenceKind::kChoice;
    step->score = !sequence.targets.empty();
    if (step->score) {
      step->score_top_n = sequence.kind == SequenceKind::kContinuation
                              ? sequence.request->spec.score_top_n
                              : sequence.request->spec.prompt_logprobs;
      batch->score_targets.resize(step->token_begin, -1);
      const auto targets = sequence.targets.begin() + sequence.fed;
      batch->score_targets.insert(batch->score_targets.end(), targets, targets + entry.num_tokens);
    }
    sequence.fed += entry.num_tokens;
  } else {
    step->token_on_device = sequence.pending_samples > 0;
    batch->tokens.push_back(step->token_on_device ? 0 : sequence.generated.back());
    step->sample = true;
  }
  if (!batch->score_targets.empty()) batch->score_targets.resize(batch->tokens.size(), -1);
  if (step->sample) {
    sequence.pending_samples += 1;
    BanWordEnds(sequence, &step->banned_token_ids);
  }
}

EngineObserver::FinishInfo Summarize(const ActiveRequest& request, const absl::Status& status,
                                     TimePoint now) {
  EngineObserver::FinishInfo info;
  info.status = status.code();
  info.reason = request.finish_reason;
  info.usage.prompt_tokens = static_cast<int32_t>(request.spec.prompt.size());
  info.usage.completion_tokens = request.completion_tokens;
  info.end_to_end = ToSeconds(now - request.submitted);
  const TimePoint scheduled = request.scheduled ? request.first_scheduled : now;
  info.timing.queue = ToSeconds(scheduled - request.submitted);
  if (request.completion_tokens > 0) {
    info.phase = Phase::kDecode;
    info.timing.prefill = ToSeconds(request.first_token - scheduled);
    info.timing.decode = ToSeconds(request.last_token - request.first_token);
  } else if (request.scheduled) {
    info.phase = Phase::kPrefill;
    info.timing.prefill = ToSeconds(now - scheduled);
  }
  return info;
}

}  // namespace hgrn2
