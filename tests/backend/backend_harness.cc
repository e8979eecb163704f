#include "tests/backend/backend_harness.h"

#include <algorithm>
#include <random>
#include <utility>

#include "base/check.h"
#include "base/string_view.h"
#include "kernels/cpu/packed_matrix.h"

namespace hgrn2::testing {
namespace {

void CheckOk(const absl::Status& status) { HGRN2_CHECK(status.ok(), ToStd(status.message())); }

}  // namespace

std::unique_ptr<Backend> BackendFactory::Make(const ModelWeights& weights,
                                              BackendOptions options) const {
  options.dtype = dtype;
  auto backend = make(weights, options);
  CheckOk(backend.status());
  return *std::move(backend);
}

std::ostream& operator<<(std::ostream& out, const BackendFactory& factory) {
  return out << factory.name;
}

std::string FactoryName(const ::testing::TestParamInfo<BackendFactory>& info) {
  return info.param.name;
}

StepSequence* AddSequence(StepBatch* batch, int32_t slot, const std::vector<int32_t>& tokens,
                          bool reset) {
  StepSequence& s = batch->sequences.emplace_back();
  s.slot = slot;
  s.token_begin = static_cast<int32_t>(batch->tokens.size());
  s.num_tokens = static_cast<int32_t>(tokens.size());
  s.reset_state = reset;
  batch->tokens.insert(batch->tokens.end(), tokens.begin(), tokens.end());
  return &s;
}

std::vector<float> FeedForLogits(Backend* backend, int32_t slot, const std::vector<int32_t>& tokens,
                                 const std::vector<int32_t>& step_sizes, bool reset) {
  std::vector<float> logits;
  size_t begin = 0;
  for (size_t i = 0; begin < tokens.size(); ++i) {
    const size_t size = std::min<size_t>(step_sizes[i % step_sizes.size()], tokens.size() - begin);
    StepBatch batch;
    AddSequence(&batch, slot, {tokens.begin() + begin, tokens.begin() + begin + size},
                reset && begin == 0);
    const auto part = backend->ForwardLogits(batch);
    CheckOk(part.status());
    logits.insert(logits.end(), part->begin(), part->end());
    begin += size;
  }
  return logits;
}

std::vector<float> StateOf(Backend* backend, int32_t slot) {
  const auto blob = backend->SaveState(slot);
  CheckOk(blob.status());
  const size_t size = SizeOf(blob->dtype);
  std::vector<float> state(blob->state.size() / size);
  for (size_t i = 0; i < state.size(); ++i) {
    state[i] = cpu::ToFloat(blob->state.data() + i * size, blob->dtype);
  }
  if (blob->scales.empty()) return state;
  const size_t row = state.size() / (blob->scales.size() / 4);
  for (size_t i = 0; i < state.size(); ++i) {
    state[i] *= cpu::ToFloat(blob->scales.data() + i / row * 4, DType::kF32);
  }
  return state;
}

StepResult RunStep(Backend* backend, const StepBatch& batch) {
  StepResult result;
  CheckOk(backend->Enqueue(batch));
  CheckOk(backend->Collect(&result));
  return result;
}

std::vector<TokenScore> Continue(Backend* backend, int32_t slot, int32_t last, int count) {
  std::vector<TokenScore> out;
  for (int i = 0; i < count; ++i) {
    StepBatch batch;
    AddSequence(&batch, slot, {last}, false)->sample = true;
    out.push_back(RunStep(backend, batch).sequences[0].sampled);
    last = out.back().token_id;
  }
  return out;
}

std::vector<TokenScore> Generate(Backend* backend, int32_t slot, const std::vector<int32_t>& prompt,
                                 const SlotSampling& sampling, int count) {
  CheckOk(backend->ConfigureSlot(slot, sampling));
  StepBatch batch;
  AddSequence(&batch, slot, prompt, true)->sample = true;
  std::vector<TokenScore> out = {RunStep(backend, batch).sequences[0].sampled};
  const auto rest = Continue(backend, slot, out[0].token_id, count - 1);
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

std::vector<int32_t> Ids(const std::vector<TokenScore>& scores) {
  std::vector<int32_t> ids;
  for (const TokenScore& s : scores) ids.push_back(s.token_id);
  return ids;
}

ModelWeights SmallModel(int head_dim, DType dtype, int conv_size, int heads, int vocab) {
  ModelConfig c;
  c.num_heads = heads;
  c.head_dim = head_dim;
  c.hidden_size = heads * head_dim;
  c.num_layers = 2;
  c.intermediate_size = 2 * c.hidden_size + 8;
  c.vocab_size = vocab;
  c.conv_size = conv_size;
  c.torch_dtype = dtype;
  return MakeDummyWeights(c, dtype, 7);
}

std::vector<int32_t> RandomTokens(int count, int vocab, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& t : tokens) t = static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab));
  return tokens;
}

}  // namespace hgrn2::testing
