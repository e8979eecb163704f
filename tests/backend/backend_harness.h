// What the backend tests are written with: a backend by name, and a sequence driven through it.
//
// The bodies are value-parameterised suites in parity_bodies.h, property_bodies.h and
// sampling_bodies.h; a binary per device includes them and instantiates them over its factories:
//   INSTANTIATE_TEST_SUITE_P(Cpu, BackendParityTest, ::testing::ValuesIn(CpuFactories()),
//   FactoryName);
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/loader/weights.h"

namespace hgrn2::testing {

// One configuration of a backend.
struct BackendFactory {
  std::string name;  // of the test case: letters, digits, _
  DType dtype = DType::kF32;
  // Relative norm error of logits and states against the float32 reference.
  double logits_tolerance = 1e-5;
  double state_tolerance = 1e-5;
  // Of the same tokens cut differently into steps.
  double split_tolerance = 1e-5;
  // One row alone and in a batch are the same bits.
  bool batch_invariant = true;
  // The same draws alone and in a batch, though the logits may differ in their last bits.
  bool tokens_batch_invariant = true;
  // A restored state goes on with the same draws as if it had never been saved.
  bool resumes_exactly = true;
  // Most alternatives that come with a token's log-probability.
  int32_t most_top = 1 << 30;
  // Shapes that the backend serves; unset: all.
  std::function<bool(const ModelConfig&)> supports;
  std::function<absl::StatusOr<std::unique_ptr<Backend>>(const ModelWeights&, BackendOptions)> make;

  // Aborts on an error. dtype is set here; the other options are the caller's.
  std::unique_ptr<Backend> Make(const ModelWeights& weights, BackendOptions options = {}) const;
};
std::ostream& operator<<(std::ostream& out, const BackendFactory& factory);
std::string FactoryName(const ::testing::TestParamInfo<BackendFactory>& info);

// Steps of up to `max_step` tokens through ForwardLogits: all logits, [tokens, vocab].
std::vector<float> FeedForLogits(Backend* backend, int32_t slot, const std::vector<int32_t>& tokens,
                                 const std::vector<int32_t>& step_sizes, bool reset = true);

// The state of a slot as floats, [L, H, K, V].
std::vector<float> StateOf(Backend* backend, int32_t slot);

// Enqueue and Collect; aborts on an error.
StepResult RunStep(Backend* backend, const StepBatch& batch);

// Appends a sequence to a batch.
StepSequence* AddSequence(StepBatch* batch, int32_t slot, const std::vector<int32_t>& tokens,
                          bool reset);

// Prefills `prompt` in a reset slot, then samples `count` tokens, each step alone in its batch.
// The sampled tokens with their scores.
std::vector<TokenScore> Generate(Backend* backend, int32_t slot, const std::vector<int32_t>& prompt,
                                 const SlotSampling& sampling, int count);
// Goes on from the slot's state, feeding `last` first.
std::vector<TokenScore> Continue(Backend* backend, int32_t slot, int32_t last, int count);

std::vector<int32_t> Ids(const std::vector<TokenScore>& scores);

// Random small model: 2 layers, 2 heads of `head_dim`, odd intermediate size and vocabulary.
ModelWeights SmallModel(int head_dim, DType dtype, int conv_size = 0, int heads = 2,
                        int vocab = 101);

std::vector<int32_t> RandomTokens(int count, int vocab, uint32_t seed);

}  // namespace hgrn2::testing
