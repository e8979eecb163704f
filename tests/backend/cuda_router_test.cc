// One engine per GPU behind the router, on two real devices. Skipped, saying so, with fewer.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/engine.h"
#include "server/engine_router.h"
#include "tests/backend/backend_harness.h"
#include "tests/testing/golden.h"

namespace hgrn2::testing {
namespace {

// Collects tokens by request; the engines' threads call it.
class Results {
 public:
  class Sink : public TokenSink {
   public:
    Sink(Results& results, int request) : results_(results), request_(request) {}
    void OnToken(int32_t, TokenScore token) override {
      const std::lock_guard lock(results_.mu_);
      results_.tokens_[request_].push_back(token.token_id);
    }
    void OnDone(const absl::Status& status, const Usage&, const Timing&) override {
      const std::lock_guard lock(results_.mu_);
      EXPECT_TRUE(status.ok()) << status;
      ++results_.done_;
      results_.changed_.notify_all();
    }

   private:
    Results& results_;
    const int request_;
  };

  std::map<int, std::vector<int32_t>> Wait(int requests) {
    std::unique_lock lock(mu_);
    EXPECT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(60), [&] { return done_ == requests; }));
    return tokens_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::map<int, std::vector<int32_t>> tokens_;
  int done_ = 0;
};

TEST(CudaRouterTest, TwoDevicesShareTheWorkAndAgree) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count < 2) {
    GTEST_SKIP() << "needs two CUDA devices, there are " << count;
  }
  const ModelWeights weights = LoadGolden("heads").weights;
  std::vector<std::unique_ptr<Engine>> engines;
  std::vector<Engine*> members;
  for (int device = 0; device < 2; ++device) {
    BackendOptions options;
    options.dtype = DType::kF32;
    options.num_slots = 32;
    options.max_batched_tokens = 1024;
    options.device_index = device;
    auto backend = MakeCudaBackend(weights, options);
    ASSERT_TRUE(backend.ok()) << backend.status();
    engines.push_back(Engine::Create(*std::move(backend), {}));
    members.push_back(engines.back().get());
  }
  EngineRouter router(std::move(engines));
  EXPECT_EQ(router.backend_info().num_slots, 64);

  constexpr int kRequests = 64, kTokens = 200;
  Results results;
  for (int i = 0; i < kRequests; ++i) {
    EngineRequest request;
    // Pairs of equal prompts: the least loaded of two takes every other request.
    request.prompt =
        RandomTokens(5 + i / 2, weights.config.vocab_size, static_cast<uint32_t>(i / 2));
    request.max_tokens = kTokens;
    request.sampling.temperature = 0;
    request.sink = std::make_shared<Results::Sink>(results, i);
    ASSERT_TRUE(router.Submit(std::move(request)).ok());
  }
  const auto tokens = results.Wait(kRequests);
  for (int i = 0; i < kRequests; i += 2) {
    EXPECT_EQ(tokens.at(i).size(), static_cast<size_t>(kTokens));
    EXPECT_EQ(tokens.at(i), tokens.at(i + 1)) << "prompt " << i / 2 << " on either device";
  }
  const uint64_t first = members[0]->Stats().num_steps, second = members[1]->Stats().num_steps;
  EXPECT_GE(std::min(first, second), kTokens) << "both devices stepped";
}

}  // namespace
}  // namespace hgrn2::testing
