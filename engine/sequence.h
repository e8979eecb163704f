// The engine thread's bookkeeping: a request is one or several sequences, each with a slot at a
// time.
//
//   one choice, or one continuation     one sequence
//   several                             a prefix sequence feeds the prompt but its last token; one
//                                       branch goes on in its slot, the others start from copies
//                                       of its state: in slots that are free, or in host memory
#pragma once

#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/request.h"
#include "engine/scheduler.h"

namespace hgrn2 {

struct ActiveRequest {
  ActiveRequest(RequestHandle handle, EngineRequest request, TimePoint now);

  const RequestHandle handle;
  EngineRequest spec;
  const TimePoint submitted;
  TimePoint first_scheduled, first_token, last_token;
  bool scheduled = false;
  bool prompt_done = false;
  bool has_multi_token_bad_words = false;
  int32_t completion_tokens = 0;
  FinishReason finish_reason = FinishReason::kStop;
  std::vector<SequenceId> sequences;  // live ones
};

enum class SequenceKind { kPrefix, kChoice, kContinuation };

struct Sequence {
  SequenceId id = 0;
  ActiveRequest* request = nullptr;
  SequenceKind kind = SequenceKind::kChoice;
  int32_t index = 0;               // choice or continuation
  std::vector<int32_t> feed;       // prompt tokens of this sequence, not empty
  std::vector<int32_t> targets;    // empty, or per token of `feed` the token to score, or -1
  int64_t fed = 0;                 // tokens of `feed` in launched steps
  std::vector<int32_t> generated;  // collected
  int32_t pending_samples = 0;     // launched and not collected
  std::vector<TokenScore> scores;  // collected
  TimePoint last_token;
  // Where the state is at the next first step in a slot: there already, in a blob, or it is zero.
  bool state_in_slot = false;
  std::shared_ptr<const StateBlob> state;
};

// The sequences a request begins with.
std::vector<std::unique_ptr<Sequence>> FirstSequences(ActiveRequest& request);
// Those that follow its prefix.
std::vector<std::unique_ptr<Sequence>> BranchSequences(ActiveRequest& request);

SlotSampling MakeSlotSampling(const Sequence& sequence);
// Adds the planned tokens of the sequence to the batch and completes `step`.
void AppendTokens(const PlanEntry& entry, Sequence& sequence, StepSequence* step, StepBatch* batch);

EngineObserver::FinishInfo Summarize(const ActiveRequest& request, const absl::Status& status,
                                     TimePoint now);

}  // namespace hgrn2
