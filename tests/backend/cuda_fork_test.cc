// The engine on a CUDA device: choices of a prompt are the same wherever their states came from.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "tests/backend/backend_harness.h"
#include "tests/testing/golden.h"

namespace hgrn2::testing {
namespace {

class Tokens : public TokenSink {
 public:
  void OnToken(int32_t choice, TokenScore token) override {
    choices[choice].push_back(token.token_id);
  }
  void OnDone(const absl::Status& status, const Usage&, const Timing&) override {
    EXPECT_TRUE(status.ok()) << status;
    done = true;
  }
  std::map<int32_t, std::vector<int32_t>> choices;
  bool done = false;
};

class Snapshots : public EngineObserver {
 public:
  void OnSnapshot(const char*, bool) override { ++count; }
  int count = 0;
};

struct Case {
  DType state;
  int32_t replay;
};
class CudaForkTest : public ::testing::TestWithParam<Case> {
 protected:
  // Four choices beside another request, the prompt cut so that its last token is alone in its
  // step: with replay it is in the ring when the state is copied.
  static std::map<int32_t, std::vector<int32_t>> Choices(const ModelWeights& weights, int slots,
                                                         int prompt_tokens, int* snapshots) {
    BackendOptions options;
    options.dtype = DType::kF32;
    options.state_dtype = GetParam().state;
    options.state_replay = GetParam().replay;
    options.num_slots = slots;
    options.max_batched_tokens = 1024;
    auto backend = MakeCudaBackend(weights, options);
    EXPECT_TRUE(backend.ok()) << backend.status();
    Snapshots observer;
    EngineOptions engine_options;
    engine_options.manual_stepping = true;
    engine_options.max_num_prefill_tokens = 64;
    engine_options.observer = &observer;
    const auto engine = Engine::Create(*std::move(backend), engine_options);
    EngineRequest other;
    other.prompt = {5};
    other.max_tokens = 40;
    other.sink = std::make_shared<Tokens>();
    EXPECT_TRUE(engine->Submit(other).ok());
    engine->StepOnce();
    engine->StepOnce();
    EngineRequest request;
    request.prompt = RandomTokens(prompt_tokens, weights.config.vocab_size, 3);
    request.num_choices = 4;
    request.max_tokens = 50;
    request.sampling.temperature = 0.9f;
    request.sampling.repetition_penalty = 1.2f;
    request.sampling.seed = 11;
    const auto sink = std::make_shared<Tokens>();
    request.sink = sink;
    EXPECT_TRUE(engine->Submit(request).ok());
    while (engine->StepOnce()) {
    }
    EXPECT_TRUE(sink->done);
    *snapshots = observer.count;
    return sink->choices;
  }
};

TEST_P(CudaForkTest, ChoicesDoNotDependOnWhereTheirStatesCameFrom) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
  for (const char* name : {"conv", "nolb"}) {
    const ModelWeights weights = LoadGolden(name).weights;
    for (const int prompt_tokens : {2, 40, 66}) {
      int snapshots = 0;
      const auto copied = Choices(weights, 8, prompt_tokens, &snapshots);
      EXPECT_EQ(snapshots, 0);
      ASSERT_EQ(copied.size(), 4u);
      for (const auto& [choice, tokens] : copied) EXPECT_EQ(tokens.size(), 50u);
      for (const int slots : {4, 2}) {
        EXPECT_EQ(Choices(weights, slots, prompt_tokens, &snapshots), copied) << slots << " slots";
        EXPECT_EQ(snapshots, slots == 4 ? 2 : 4) << "one copy to host memory, from it the rest";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(States, CudaForkTest,
                         ::testing::Values(Case{DType::kF32, 1}, Case{DType::kF16, 16},
                                           Case{DType::kF8E4M3, 32}),
                         [](const auto& info) { return std::string(Name(info.param.state)); });

}  // namespace
}  // namespace hgrn2::testing
