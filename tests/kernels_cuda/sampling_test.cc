// The device's sampling against the CPU's, which has its own tests against a sorted reference.
#include "kernels/cuda/sampling/sampling.h"

#include <algorithm>

#include "kernels/cpu/sampler.h"
#include "tests/kernels_cuda/device_test.h"

namespace hgrn2::cuda {
namespace {

// Slots of one device with their tables.
class SamplingTest : public DeviceTest {
 protected:
  struct Device {
    Device(int slots, int vocab)
        : params(std::vector<SlotSamplingParams>(slots)),
          bias(static_cast<size_t>(slots) * vocab),
          flags(std::vector<uint32_t>(static_cast<size_t>(slots) * vocab)),
          last(slots),
          generated(std::vector<uint32_t>(slots)),
          step(std::vector<uint32_t>{3}),
          results(64) {}
    DeviceArray<SlotSamplingParams> params;
    DeviceArray<float> bias;
    DeviceArray<uint32_t> flags;
    DeviceArray<int32_t> last;
    DeviceArray<uint32_t> generated;
    DeviceArray<uint32_t> step;
    DeviceArray<TokenResult> results;
  };

  // Samples or scores rows; results in the order of `rows`.
  static std::vector<TokenResult> Run(const std::vector<float>& logits, std::vector<LogitRow> rows,
                                      const std::vector<int32_t>& bans, Device& d, int vocab) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i].out_index = static_cast<int32_t>(i);
    DeviceArray<float> dl(logits);
    DeviceArray<LogitRow> dr(rows);
    DeviceArray<int32_t> db(bans.empty() ? std::vector<int32_t>{0} : bans);
    SampleParams p;
    p.logits = dl.get(), p.rows = dr.get(), p.bans = db.get(), p.slots = d.params.get();
    p.bias = d.bias.get(), p.token_flags = d.flags.get(), p.last_token = d.last.get();
    p.num_generated = d.generated.get(), p.results[1] = d.results.get(), p.step = d.step.get();
    p.num_rows = static_cast<int32_t>(rows.size()), p.vocab = vocab;
    EXPECT_EQ(InitSampling(), cudaSuccess);
    EXPECT_EQ(Sample(p, nullptr), cudaSuccess);
    auto all = d.results.Read();
    all.resize(rows.size());
    return all;
  }

  static void Configure(Device& d, int vocab, int slot, const SamplingScalars& scalars,
                        uint32_t position) {
    ConfigureSlotParams c;
    c.slot = slot, c.vocab = vocab, c.sampling.scalars = scalars, c.num_generated = position;
    c.slots = d.params.get(), c.bias = d.bias.get(), c.token_flags = d.flags.get();
    c.generated_counts = d.generated.get(), c.last_tokens = d.last.get();
    EXPECT_EQ(ConfigureSlot(c, nullptr), cudaSuccess);
  }

  static int32_t OnCpu(const std::vector<float>& row, const SamplingScalars& s, uint32_t position,
                       const std::vector<int32_t>& bans = {}) {
    const int vocab = static_cast<int>(row.size());
    std::vector<float> padded = row;
    padded.resize((vocab + 15) / 16 * 16);
    cpu::PadLogits(padded.data(), vocab, static_cast<int>(padded.size()));
    cpu::SamplerScratch scratch(vocab);
    cpu::SampleParams p;
    p.logits = padded.data(), p.vocab = vocab, p.scalars = s, p.position = position;
    p.banned[0] = bans;
    p.scratch = &scratch;
    return cpu::SampleToken(p);
  }
};

TEST_F(SamplingTest, PicksTheTokensThatTheCpuPicks) {
  std::vector<SamplingScalars> cases;
  for (const float temperature : {0.0f, 0.3f, 1.0f, 2.5f}) {
    for (const int top_k : {0, 1, 5, 50}) {
      for (const float top_p : {1.0f, 0.9f, 0.3f, 0.0f}) {
        for (const float min_p : {0.0f, 0.05f}) {
          SamplingScalars s;
          s.temperature = temperature, s.top_k = top_k, s.top_p = top_p, s.min_p = min_p;
          s.seed = cases.size() * 7919 + 1;
          cases.push_back(s);
        }
      }
    }
  }
  int compared = 0, different = 0;
  for (const int vocab : {1, 97, 5000, 60000}) {  // 60000: too many for the shared-memory cache
    Device d(static_cast<int>(cases.size()), vocab);
    for (size_t begin = 0; begin < cases.size(); begin += 32) {
      const auto logits = Normal(static_cast<size_t>(32) * vocab, 11 + vocab, 3);
      std::vector<LogitRow> rows(32);
      for (int i = 0; i < 32; ++i) {
        rows[i].slot = static_cast<int32_t>(begin) + i;
        Configure(d, vocab, rows[i].slot, cases[begin + i], 5 + i);
      }
      const auto results = Run(logits, rows, {}, d, vocab);
      for (int i = 0; i < 32; ++i, ++compared) {
        const std::vector<float> row(logits.begin() + int64_t{i} * vocab,
                                     logits.begin() + int64_t{i + 1} * vocab);
        different += results[i].token != OnCpu(row, cases[begin + i], 5 + i);
      }
    }
  }
  // The two sum and take logarithms in different ways: a draw within a rounding error of a
  // threshold may differ, nothing more.
  EXPECT_LE(different, compared / 200) << "of " << compared;
}

TEST_F(SamplingTest, TiesGoToTheLowestId) {
  const int vocab = 3000;
  Device d(1, vocab);
  SamplingScalars greedy;
  greedy.temperature = 0;
  Configure(d, vocab, 0, greedy, 0);
  std::vector<float> logits(vocab, -1.0f);
  logits[2999] = logits[1500] = logits[1501] = 4.0f;
  LogitRow row;
  row.slot = 0;
  EXPECT_EQ(Run(logits, {row}, {}, d, vocab)[0].token, 1500);
  EXPECT_EQ(d.last.Read()[0], 1500);
  EXPECT_EQ(d.generated.Read()[0], 1u);
  row.ban_begin = 1, row.ban_count = 2;
  EXPECT_EQ(Run(logits, {row}, {7, 1500, 1501}, d, vocab)[0].token, 2999);
  // The ban was of that step alone.
  row.ban_count = 0;
  EXPECT_EQ(Run(logits, {row}, {}, d, vocab)[0].token, 1500);
}

TEST_F(SamplingTest, ListsAndPenalties) {
  const int vocab = 40;
  Device d(2, vocab);
  std::vector<float> logits(vocab);
  for (int i = 0; i < vocab; ++i) logits[i] = 2.0f - 0.01f * i;
  const DeviceArray<int32_t> prompt(std::vector<int32_t>{0}), generated(std::vector<int32_t>{1, 1}),
      min_bans(std::vector<int32_t>{2}), allowed(std::vector<int32_t>{0, 1, 2, 3, 4, 5}),
      bias_ids(std::vector<int32_t>{5}), banned(std::vector<int32_t>{3});
  const DeviceArray<float> bias(std::vector<float>{-0.02f});
  ConfigureSlotParams c;
  c.slot = 1, c.vocab = vocab, c.num_generated = 2;
  c.sampling.scalars.temperature = 0;
  c.sampling.scalars.repetition_penalty = 2, c.sampling.scalars.frequency_penalty = 0.1f;
  c.sampling.min_tokens = 3, c.sampling.has_bias = 1, c.sampling.has_token_flags = 1;
  c.all_banned = true;
  c.prompt = prompt.get(), c.num_prompt = 1, c.generated = generated.get(),
  c.num_generated_list = 2;
  c.min_bans = min_bans.get(), c.num_min_bans = 1, c.allowed = allowed.get(), c.num_allowed = 6;
  c.bias_ids = bias_ids.get(), c.bias_values = bias.get(), c.num_bias = 1;
  c.banned = banned.get(), c.num_banned = 1;
  c.slots = d.params.get(), c.bias = d.bias.get(), c.token_flags = d.flags.get();
  c.generated_counts = d.generated.get(), c.last_tokens = d.last.get();
  ASSERT_CUDA(ConfigureSlot(c, nullptr));
  LogitRow row;
  row.slot = 1;
  // 0 and 1 are penalised, 2 waits for min_tokens, 3 is banned, 5 biased below 4, the rest not
  // allowed.
  EXPECT_EQ(Run(logits, {row}, {}, d, vocab)[0].token, 4);
  // Three tokens now: 2 is free.
  EXPECT_EQ(Run(logits, {row}, {}, d, vocab)[0].token, 2);
  // 4 and 2 were generated: halved. 5 is what is left.
  EXPECT_EQ(Run(logits, {row}, {}, d, vocab)[0].token, 5);
}

TEST_F(SamplingTest, LogprobsRankAndAlternatives) {
  const int vocab = 1234;
  Device d(1, vocab);
  const auto logits = Normal(vocab, 5, 2);
  std::vector<int> order(vocab);
  for (int i = 0; i < vocab; ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  double sum = 0;
  for (const float x : logits) sum += std::exp(double{x});
  LogitRow row;
  row.target = order[17];
  row.top_n = 20;
  const TokenResult r = Run(logits, {row}, {}, d, vocab)[0];
  EXPECT_EQ(r.token, order[17]);
  EXPECT_EQ(r.rank, 18);
  EXPECT_NEAR(r.logprob, logits[order[17]] - std::log(sum), 1e-5);
  ASSERT_EQ(r.num_top, 20);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(r.top_token[i], order[i]);
    EXPECT_NEAR(r.top_logprob[i], logits[order[i]] - std::log(sum), 1e-5);
  }
}

}  // namespace
}  // namespace hgrn2::cuda
