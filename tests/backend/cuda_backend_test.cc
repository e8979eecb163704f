// The backend tests on a CUDA device, and what only the CUDA backend promises. Without a device the
// suites are empty and one test says so.
#include <cuda_runtime_api.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/backend/backend_harness.h"
#include "tests/backend/parity_bodies.h"
#include "tests/backend/property_bodies.h"
#include "tests/backend/sampling_bodies.h"
#include "tests/backend/validation.h"

namespace hgrn2::testing {

// The suites' parameters depend on the machine.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BackendParityTest);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BackendPropertyTest);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BackendSamplingTest);

namespace {

bool HasDevice() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

BackendFactory Cuda(const std::string& name, DType dtype, DType state_dtype, int replay,
                    double tolerance) {
  BackendFactory f;
  f.name = name;
  f.dtype = dtype;
  f.logits_tolerance = f.state_tolerance = f.split_tolerance = tolerance;
  // Products of different row counts may use different algorithms.
  f.batch_invariant = false;
  // bfloat16: small decode batches take another kernel than large ones and prefills.
  f.tokens_batch_invariant = dtype == DType::kF32;
  // A snapshot folds the replay ring into the state: one more rounding to e4m3.
  f.resumes_exactly = state_dtype != DType::kF8E4M3;
  f.most_top = 20;
  f.supports = [](const ModelConfig& c) { return c.head_dim % 16 == 0 && c.conv_size != 1; };
  f.make = [state_dtype, replay](const ModelWeights& weights, BackendOptions options) {
    options.state_dtype = state_dtype;
    options.state_replay = replay;
    if (options.max_batched_tokens == 0) options.max_batched_tokens = 2048;
    return MakeCudaBackend(weights, options);
  };
  return f;
}

std::vector<BackendFactory> Factories() {
  if (!HasDevice()) return {};
  return {
      Cuda("fp32", DType::kF32, DType::kF32, 1, 1e-5),
      Cuda("fp32_replay16", DType::kF32, DType::kF32, 16, 1e-5),
      Cuda("fp32_state_f16", DType::kF32, DType::kF16, 1, 1e-3),
      Cuda("fp32_state_f16_replay16", DType::kF32, DType::kF16, 16, 5e-4),
      Cuda("fp32_state_bf16_replay8", DType::kF32, DType::kBF16, 8, 4e-3),
      Cuda("fp32_state_fp8_replay16", DType::kF32, DType::kF8E4M3, 16, 3e-2),
      Cuda("bf16", DType::kBF16, DType::kF32, 1, 2e-2),
      Cuda("bf16_state_f16_replay16", DType::kBF16, DType::kF16, 16, 2e-2),
  };
}
std::vector<BackendFactory> SamplingFactories() {
  if (!HasDevice()) return {};
  return {Cuda("fp32", DType::kF32, DType::kF32, 1, 1e-5),
          Cuda("bf16", DType::kBF16, DType::kF16, 16, 2e-2)};
}

INSTANTIATE_TEST_SUITE_P(Cuda, BackendParityTest, ::testing::ValuesIn(Factories()), FactoryName);
INSTANTIATE_TEST_SUITE_P(Cuda, BackendPropertyTest, ::testing::ValuesIn(Factories()), FactoryName);
INSTANTIATE_TEST_SUITE_P(Cuda, BackendSamplingTest, ::testing::ValuesIn(SamplingFactories()),
                         FactoryName);

class CudaBackendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!HasDevice()) GTEST_SKIP() << "no CUDA device";
  }
};

TEST_F(CudaBackendTest, RefusesWhatItCannotDo) {
  const ModelWeights weights = SmallModel(32, DType::kF32);
  BackendOptions options;
  options.dtype = DType::kF16;
  EXPECT_EQ(MakeCudaBackend(weights, options).status().code(), absl::StatusCode::kInvalidArgument);
  options = {};
  options.device_index = 99;
  EXPECT_EQ(MakeCudaBackend(weights, options).status().code(), absl::StatusCode::kInvalidArgument);
  for (const ModelWeights& odd : {SmallModel(20, DType::kF32), SmallModel(32, DType::kF32, 1),
                                  SmallModel(32, DType::kF32, 9)}) {
    EXPECT_EQ(MakeCudaBackend(odd, {}).status().code(), absl::StatusCode::kInvalidArgument);
  }
  options = {};
  options.state_replay = 1000;
  EXPECT_EQ(MakeCudaBackend(weights, options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaBackendTest, SaysWhyItDoesNotFit) {
  BackendOptions options;
  options.memory_utilization = 0.001;
  const auto status = MakeCudaBackend(SmallModel(32, DType::kF32), options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(status.message()).find("GiB"), std::string::npos) << status;
}

TEST_F(CudaBackendTest, ReplayFollowsTheStatesType) {
  for (const auto& [state, replay] :
       {std::pair(DType::kF8E4M3, 32), {DType::kF16, 16}, {DType::kF32, 16}}) {
    BackendOptions options;
    options.state_dtype = state;
    options.num_slots = 2;
    for (const int32_t asked : {0, 1, 8}) {
      options.state_replay = asked;
      const auto backend = MakeCudaBackend(SmallModel(32, DType::kF32), options);
      ASSERT_TRUE(backend.ok()) << backend.status();
      EXPECT_EQ((*backend)->info().state_replay, asked == 0 ? replay : asked);
    }
  }
}

// So many slots that a layer of all is more than 2 GiB, which strided copies do not take.
TEST_F(CudaBackendTest, CopiesStatesBetweenVeryManySlots) {
  const ModelWeights weights = SmallModel(256, DType::kF32);
  BackendOptions options;
  options.dtype = options.state_dtype = DType::kF32;
  options.num_slots = 4'200;  // of 512 KiB a layer
  options.max_batched_tokens = 64;
  auto made = MakeCudaBackend(weights, options);
  ASSERT_TRUE(made.ok()) << made.status();
  Backend* const backend = made->get();
  ASSERT_EQ(backend->info().num_slots, options.num_slots);
  const int last = options.num_slots - 1;
  FeedForLogits(backend, 3, RandomTokens(20, weights.config.vocab_size, 1), {20});
  const std::vector<float> state = StateOf(backend, 3);
  ASSERT_TRUE(backend->CopyState(3, last).ok());
  EXPECT_EQ(StateOf(backend, last), state);
  const auto blob = backend->SaveState(last);
  ASSERT_TRUE(blob.ok());
  ASSERT_TRUE(backend->RestoreState(4, *blob).ok());
  EXPECT_EQ(StateOf(backend, 4), state);
}

// What is planned is what is taken, and no more than the share that was allowed.
TEST_F(CudaBackendTest, SlotsFillTheirShareOfTheMemory) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const ModelWeights weights = SmallModel(64, dtype, 0, 8, 4096);
    size_t before = 0, after = 0, total = 0;
    ASSERT_EQ(cudaMemGetInfo(&before, &total), cudaSuccess);
    BackendOptions options;
    options.dtype = dtype;
    options.num_slots = 60'000;
    options.max_batched_tokens = 1024;
    constexpr double kSlack = 1.0 * (1 << 30);
    options.memory_utilization = (static_cast<double>(total - before) + 4 * kSlack) / total;
    const auto backend = MakeCudaBackend(weights, options);
    ASSERT_TRUE(backend.ok()) << backend.status();
    ASSERT_EQ(cudaMemGetInfo(&after, &total), cudaSuccess);
    const BackendInfo& info = (*backend)->info();
    EXPECT_LT(info.num_slots, options.num_slots);
    const double used = static_cast<double>(total - after),
                 allowed = options.memory_utilization * total;
    EXPECT_LE(used, allowed);
    EXPECT_GE(used, allowed - kSlack);
    const double counted = static_cast<double>(info.weight_bytes) +
                           static_cast<double>(info.num_slots) * info.state_bytes_per_sequence;
    EXPECT_GE(counted, 0.5 * (used - (total - before)));
    EXPECT_LE(counted, used - (total - before));
  }
}

TEST_F(CudaBackendTest, BadBatchesAreErrors) {
  const auto backend = Cuda("", DType::kF32, DType::kF32, 0, 0).Make(SmallModel(32, DType::kF32));
  StepBatch batch;
  AddSequence(&batch, 1'000'000, {1}, true);
  EXPECT_EQ(backend->Enqueue(batch).code(), absl::StatusCode::kInvalidArgument);
  batch.Clear();
  AddSequence(&batch, 0, std::vector<int32_t>(backend->info().max_batched_tokens + 1, 1), true);
  EXPECT_EQ(backend->Enqueue(batch).code(), absl::StatusCode::kInvalidArgument);
}

// Two steps in flight, tokens fed on the device, batches that grow and shrink across graph buckets:
// the same greedy tokens as one step at a time.
TEST_F(CudaBackendTest, PipelinedStepsGiveTheSameTokens) {
  const ModelWeights weights = LoadGolden("heads").weights;
  BackendOptions options;
  options.num_slots = 40;
  const auto backend = Cuda("", DType::kF32, DType::kF32, 16, 0).Make(weights, options);
  constexpr int kSequences = 37, kSteps = 24;
  SlotSampling greedy;
  greedy.scalars.temperature = 0;
  std::vector<std::vector<int32_t>> expected, actual(kSequences);
  for (int i = 0; i < kSequences; ++i) {
    const auto prompt = RandomTokens(3 + i, weights.config.vocab_size, static_cast<uint32_t>(i));
    expected.push_back(Ids(Generate(backend.get(), 39, prompt, greedy, kSteps)));
    ASSERT_TRUE(backend->ConfigureSlot(i, greedy).ok());
    StepBatch batch;
    AddSequence(&batch, i, prompt, true)->sample = true;
    actual[i].push_back(RunStep(backend.get(), batch).sequences[0].sampled.token_id);
  }
  // Sequence i leaves after kSteps - i % 7 tokens.
  std::vector<std::vector<int>> members;
  for (int step = 1; step <= kSteps; ++step) {
    members.emplace_back();
    StepBatch batch;
    for (int i = 0; i < kSequences && step < kSteps; ++i) {
      if (step >= kSteps - i % 7) continue;
      members.back().push_back(i);
      StepSequence* s = AddSequence(&batch, i, {0}, false);
      s->sample = s->token_on_device = true;
    }
    if (step < kSteps) {
      ASSERT_TRUE(backend->Enqueue(batch).ok());
    }
    if (step == 1) continue;
    StepResult result;
    ASSERT_TRUE(backend->Collect(&result).ok());
    for (size_t m = 0; m < members[step - 2].size(); ++m) {
      actual[members[step - 2][m]].push_back(result.sequences[m].sampled.token_id);
    }
  }
  for (int i = 0; i < kSequences; ++i) {
    expected[i].resize(actual[i].size());
    EXPECT_EQ(actual[i], expected[i]) << "sequence " << i;
  }
}

// Decodes beside the parts of a prompt, in steps of few shapes, so that most of them run as graphs:
// the same greedy tokens as alone.
TEST_F(CudaBackendTest, DecodesBesidePromptsGiveTheSameTokens) {
  const ModelWeights weights = LoadGolden("heads").weights;
  for (const DType state : {DType::kF32, DType::kF16}) {
    BackendOptions options;
    options.num_slots = 16;
    const auto backend = Cuda("", DType::kF32, state, 16, 0).Make(weights, options);
    constexpr int kDecodes = 5, kPrompts = 3, kChunk = 8, kChunks = 9,
                  kSteps = 1 + kPrompts * kChunks;
    SlotSampling greedy;
    greedy.scalars.temperature = 0;
    std::vector<std::vector<int32_t>> expected, actual(kDecodes + kPrompts);
    std::vector<std::vector<int32_t>> prompts;
    for (int i = 0; i < kDecodes + kPrompts; ++i) {
      const int length = i < kDecodes ? 3 + i : kChunk * kChunks;
      prompts.push_back(RandomTokens(length, weights.config.vocab_size, static_cast<uint32_t>(i)));
      if (i < kDecodes) {
        expected.push_back(Ids(Generate(backend.get(), 15, prompts[i], greedy, kSteps)));
        ASSERT_TRUE(backend->ConfigureSlot(i, greedy).ok());
        StepBatch batch;
        AddSequence(&batch, i, prompts[i], true)->sample = true;
        actual[i].push_back(RunStep(backend.get(), batch).sequences[0].sampled.token_id);
        continue;
      }
      expected.emplace_back();
      ASSERT_TRUE(backend->ConfigureSlot(15, greedy).ok());
      for (int c = 0; c < kChunks; ++c) {
        StepBatch batch;
        const auto from = prompts[i].begin() + c * kChunk;
        AddSequence(&batch, 15, {from, from + kChunk}, c == 0)->sample = c == kChunks - 1;
        const StepResult result = RunStep(backend.get(), batch);
        if (c == kChunks - 1) expected[i].push_back(result.sequences[0].sampled.token_id);
      }
    }
    for (int step = 0; step + 1 < kSteps; ++step) {
      const int p = kDecodes + step / kChunks, c = step % kChunks;
      StepBatch batch;
      for (int i = 0; i < kDecodes; ++i) {
        StepSequence* s = AddSequence(&batch, i, {0}, false);
        s->sample = s->token_on_device = true;
      }
      if (c == 0) {
        ASSERT_TRUE(backend->ConfigureSlot(p, greedy).ok());
      }
      const auto from = prompts[p].begin() + c * kChunk;
      AddSequence(&batch, p, {from, from + kChunk}, c == 0)->sample = c == kChunks - 1;
      const StepResult result = RunStep(backend.get(), batch);
      for (int i = 0; i < kDecodes; ++i) {
        actual[i].push_back(result.sequences[i].sampled.token_id);
      }
      if (c == kChunks - 1) actual[p].push_back(result.sequences[kDecodes].sampled.token_id);
    }
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_EQ(actual[i], expected[i]) << "sequence " << i << ", state " << Name(state);
    }
  }
}

TEST_F(CudaBackendTest, Fp8WeightsAreCloseToTheirOriginals) {
  const GoldenCase golden = LoadGolden("base");
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  for (const DType state : {DType::kF16, DType::kF8E4M3}) {  // FP8: no persistent kernel
    BackendOptions options;
    options.fp8_weights = true;
    options.state_dtype = state;
    options.max_batched_tokens = 2048;
    const auto backend = MakeCudaBackend(golden.weights, options);
    if (properties.major != 9) {
      EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
      return;
    }
    ASSERT_TRUE(backend.ok()) << backend.status();
    // All at once, in parts as large as fused layers take, and one by one.
    for (const int32_t split : {1000, 100, 1}) {
      const auto logits = FeedForLogits(backend->get(), 1, golden.RowIds(0), {split});
      const double error = RelativeError(logits, golden.RowLogits(0));
      EXPECT_LE(error, 0.15) << split;  // e4m3 keeps 3 bits of mantissa
      EXPECT_GT(error, 1e-4) << "not quantised?";
      RecordProperty("error_" + std::to_string(split), std::to_string(error));
    }
  }
}

TEST_F(CudaBackendTest, ValidationLossOfTheEmbeddedModel) {
  auto weights = LoadModelWeights(EmbeddedModelDirectory(), LoadFormat::kAuto, 0);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const ValidationSet set = LoadValidationSet();
  const std::vector<int32_t> row(set.rows[0].begin(), set.rows[0].begin() + 192);
  const double expected = OracleLoss(*weights, row);
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  struct Weights {
    DType dtype;
    bool fp8;
    double tolerance;
    const char* property;
  };
  for (const Weights& w : {Weights{DType::kF32, false, 1e-4, "loss_fp32"},
                           {DType::kBF16, false, 5e-3, "loss_bf16"},
                           {DType::kBF16, true, 5e-2, "loss_fp8"}}) {
    if (w.fp8 && properties.major != 9) continue;
    BackendOptions options;
    options.dtype = w.dtype;
    options.fp8_weights = w.fp8;
    options.num_slots = 1;
    options.max_batched_tokens = 2048;
    const auto backend = MakeCudaBackend(*weights, options);
    ASSERT_TRUE(backend.ok()) << backend.status();
    const double loss = BackendLoss(backend->get(), {row});
    EXPECT_NEAR(loss, expected, w.tolerance);
    RecordProperty(w.property, std::to_string(loss));
  }
}

// Many rows go through other products than few (docs/kernels/wide-gemm.md), and mean the same.
TEST_F(CudaBackendTest, LossDoesNotDependOnTheStep) {
  auto weights = LoadModelWeights(EmbeddedModelDirectory(), LoadFormat::kAuto, 0);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ValidationSet set = LoadValidationSet();
  set.rows.resize(16);
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  for (const bool fp8 : {false, true}) {
    if (fp8 && properties.major != 9) continue;
    BackendOptions options;
    options.dtype = DType::kBF16;
    options.fp8_weights = fp8;
    options.num_slots = 16;
    options.max_batched_tokens = 16 * 1024;
    const auto packed = MakeCudaBackend(*weights, options);
    ASSERT_TRUE(packed.ok()) << packed.status();
    const double loss = PackedLoss(packed->get(), set.rows);
    for (const int32_t tokens : {1024, 512, 128}) {
      options.num_slots = 1;
      options.max_batched_tokens = tokens;
      const auto backend = MakeCudaBackend(*weights, options);
      ASSERT_TRUE(backend.ok()) << backend.status();
      EXPECT_NEAR(BackendLoss(backend->get(), set.rows), loss, fp8 ? 5e-3 : 1e-3) << tokens;
    }
  }
}

}  // namespace
}  // namespace hgrn2::testing
