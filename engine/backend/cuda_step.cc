#include "engine/backend/cuda_step.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cuda/gemm/token_bucket.h"

namespace hgrn2 {
namespace {

// The arrays while they are gathered.
struct Arrays {
  std::vector<int32_t> tokens, token_slots, decode_slots, decode_rows, flush_slots, age_slots,
      row_index, bans;
  std::vector<uint8_t> decode_reset, age_written;
  std::vector<cuda::PrefillSequence> prefills;
  std::vector<cuda::LogitRow> rows;
};

template <typename T>
StepArray Append(const T* data, size_t count, StepPlan* plan) {
  const size_t offset = (plan->bytes.size() + 15) / 16 * 16;
  plan->bytes.resize(offset + count * sizeof(T));
  if (count > 0) std::memcpy(plan->bytes.data() + offset, data, count * sizeof(T));
  return {offset, static_cast<int32_t>(count)};
}
template <typename T>
StepArray Append(const std::vector<T>& values, StepPlan* plan) {
  return Append(values.data(), values.size(), plan);
}

bool IsDecodeOnly(const StepBatch& batch) {
  return std::all_of(batch.sequences.begin(), batch.sequences.end(),
                     [](const StepSequence& s) { return s.num_tokens == 1 && !s.score; });
}

void AddRow(int32_t x_row, const StepSequence& s, int32_t target, StepPlan* plan, Arrays* a) {
  cuda::LogitRow row;
  row.x_row = x_row;
  row.slot = s.slot;
  row.target = target;
  row.top_n = target >= 0 ? s.score_top_n : 0;
  row.out_index = plan->num_outputs++;
  if (target < 0) {
    row.ban_begin = static_cast<int32_t>(a->bans.size());
    row.ban_count = static_cast<int32_t>(s.banned_token_ids.size());
    a->bans.insert(a->bans.end(), s.banned_token_ids.begin(), s.banned_token_ids.end());
  }
  a->rows.push_back(row);
}

void AddSequence(const StepBatch& batch, const StepSequence& s, const StepContext& context,
                 StepPlan* plan, Arrays* a) {
  const int32_t first = static_cast<int32_t>(a->tokens.size());
  for (int32_t t = 0; t < s.num_tokens; ++t) {
    a->tokens.push_back(s.token_on_device ? -1 : batch.tokens[s.token_begin + t]);
    a->token_slots.push_back(s.slot);
  }
  if (s.num_tokens == 1) {
    a->decode_slots.push_back(s.slot);
    a->decode_rows.push_back(first);
    a->decode_reset.push_back(s.reset_state);
  } else {
    a->prefills.push_back({first, s.num_tokens, s.slot, s.reset_state});
    if (!s.reset_state && context.ages[s.slot] > 0) a->flush_slots.push_back(s.slot);
  }
  a->age_slots.push_back(s.slot);
  a->age_written.push_back(s.num_tokens > 1 || s.reset_state);
  StepOutputs outputs;
  outputs.scores = plan->num_outputs;
  if (s.score && !batch.score_targets.empty()) {
    for (int32_t t = 0; t < s.num_tokens; ++t) {
      const int32_t target = batch.score_targets[s.token_begin + t];
      if (target >= 0) AddRow(first + t, s, target, plan, a);
    }
  }
  outputs.num_scores = plan->num_outputs - outputs.scores;
  if (s.sample) {
    outputs.sampled = plan->num_outputs;
    AddRow(first + s.num_tokens - 1, s, -1, plan, a);
  }
  plan->outputs.push_back(outputs);
}

// One row of logits per sequence, in order, so that the arrays' sizes depend on the bucket alone.
void PadForGraph(const StepBatch& batch, size_t bucket, Arrays* a) {
  std::vector<cuda::LogitRow> rows(bucket);
  size_t next = 0;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    rows[i].x_row = static_cast<int32_t>(i);
    if (batch.sequences[i].sample) rows[i] = a->rows[next++];
  }
  a->rows = std::move(rows);
  a->decode_slots.resize(bucket, -1);
  a->decode_reset.resize(bucket, 0);
  while (a->decode_rows.size() < bucket) {
    a->decode_rows.push_back(static_cast<int32_t>(a->decode_rows.size()));
  }
  a->age_slots.resize(bucket, -1);
  a->age_written.resize(bucket, 0);
  a->bans.resize(bucket * kGraphBansPerRow, 0);
}

// Padded decodes have no slot; what they write goes to a row of padding, so there must be one.
// Prompts are padded by empty items. Returns whether the step fits.
bool PadForMixedGraph(int32_t num_tokens, int32_t padded_tokens, Arrays* a,
                      cuda::PrefillPlan* prefill) {
  const size_t decodes = cuda::GemmTokenBucket(static_cast<int64_t>(a->decode_slots.size()));
  const size_t rows = cuda::GemmTokenBucket(static_cast<int64_t>(a->rows.size()));
  if (a->rows.empty() || a->bans.size() > rows * kGraphBansPerRow || !a->flush_slots.empty() ||
      prefill->has_long_sequences ||
      (decodes > a->decode_slots.size() && num_tokens == padded_tokens)) {
    return false;
  }
  a->decode_slots.resize(decodes, -1);
  a->decode_rows.resize(decodes, padded_tokens - 1);
  a->decode_reset.resize(decodes, 0);
  prefill->items.resize(std::bit_ceil(prefill->items.size()));
  a->age_slots.resize(decodes + prefill->items.size(), -1);
  a->age_written.resize(a->age_slots.size(), 0);
  a->rows.resize(rows);
  a->bans.resize(rows * kGraphBansPerRow, 0);
  return true;
}

bool HasScores(const StepBatch& batch) {
  return std::any_of(batch.sequences.begin(), batch.sequences.end(),
                     [](const StepSequence& s) { return s.score; });
}

}  // namespace

MixedGraphKey MixedGraphKeyOf(const StepShape& shape) {
  return {shape.padded_tokens, shape.decode_slots.count, shape.prefill_items.count, shape.num_rows};
}

void BuildStep(const StepBatch& batch, const StepContext& context, bool all_logits,
               StepPlan* plan) {
  *plan = StepPlan();
  Arrays a;
  for (const StepSequence& s : batch.sequences) AddSequence(batch, s, context, plan, &a);
  StepShape& shape = plan->shape;
  shape.num_tokens = static_cast<int32_t>(a.tokens.size());
  shape.padded_tokens =
      static_cast<int32_t>(cuda::GemmTokenBucket(std::max(shape.num_tokens, context.min_tokens)));
  if (all_logits) {
    a.rows.assign(shape.num_tokens, {});
    for (int32_t t = 0; t < shape.num_tokens; ++t) a.rows[t].x_row = t;
  } else if (IsDecodeOnly(batch) &&
             a.bans.size() <= static_cast<size_t>(shape.padded_tokens) * kGraphBansPerRow) {
    shape.graphable = true;
    PadForGraph(batch, shape.padded_tokens, &a);
  }
  cuda::PrefillPlan prefill =
      cuda::PlanPrefill(a.prefills, context.head_dim, context.activation, context.state_dtype);
  shape.num_workspace_states = prefill.num_workspace_states;
  shape.has_long_sequences = prefill.has_long_sequences;
  if (!all_logits && !a.prefills.empty() && !a.decode_slots.empty() && !HasScores(batch)) {
    shape.mixed_graphable = PadForMixedGraph(shape.num_tokens, shape.padded_tokens, &a, &prefill);
  }
  shape.num_rows = static_cast<int32_t>(a.rows.size());
  const int64_t padded_rows = shape.num_rows == 0 ? 0 : cuda::GemmTokenBucket(shape.num_rows);
  a.rows.resize(padded_rows);
  for (const cuda::LogitRow& row : a.rows) a.row_index.push_back(row.x_row);
  a.tokens.resize(shape.padded_tokens, 0);
  a.token_slots.resize(shape.padded_tokens, -1);
  shape.tokens = Append(a.tokens, plan);
  shape.token_slots = Append(a.token_slots, plan);
  shape.decode_slots = Append(a.decode_slots, plan);
  shape.decode_rows = Append(a.decode_rows, plan);
  shape.decode_reset = Append(a.decode_reset, plan);
  shape.prefill_items = Append(prefill.items, plan);
  shape.flush_slots = Append(a.flush_slots, plan);
  shape.age_slots = Append(a.age_slots, plan);
  shape.age_written = Append(a.age_written, plan);
  shape.row_index = Append(a.row_index, plan);
  shape.rows = Append(a.rows, plan);
  shape.bans = Append(a.bans, plan);
  shape.bytes = plan->bytes.size();
}

size_t MaxStepBytes(int32_t max_tokens, int32_t num_slots) {
  const size_t tokens = cuda::GemmTokenBucket(max_tokens);
  const size_t slots = cuda::GemmTokenBucket(num_slots);
  const size_t rows = cuda::GemmTokenBucket(max_tokens + num_slots);
  return tokens * 2 * sizeof(int32_t) + slots * (4 * sizeof(int32_t) + 2) +
         2 * cuda::MaxPrefillItems(max_tokens, num_slots) *
             (sizeof(cuda::PrefillItem) + sizeof(int32_t) + 1) +
         rows * (sizeof(cuda::LogitRow) + sizeof(int32_t)) +
         slots * kGraphBansPerRow * sizeof(int32_t) + kMaxExtraBanBytes + 12 * 16;
}

}  // namespace hgrn2
