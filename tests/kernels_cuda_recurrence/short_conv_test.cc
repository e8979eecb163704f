// The short convolution against float64, decode and prefill, with the slot's inputs carried
// between.
#include <algorithm>

#include "tests/kernels_cuda_recurrence/support.h"

namespace hgrn2::cuda::test {
namespace {

struct Case {
  int d;
  int conv_size;
  DType activation;
};

class ShortConvTest : public testing::TestWithParam<Case> {
 protected:
  static constexpr int kSlots = 5;

  void SetUp() override {
    HGRN2_REQUIRE_GPU();
    c_ = GetParam();
    std::normal_distribution<float> normal;
    weight_host_.resize(static_cast<size_t>(3) * c_.d * c_.conv_size);
    for (float& w : weight_host_) w = normal(random_);
    weight_ = Upload(weight_host_);
    state_ =
        Buffer(static_cast<size_t>(kSlots) * 3 * (c_.conv_size - 1) * c_.d * SizeOf(c_.activation));
    history_.assign(kSlots, std::vector<float>(static_cast<size_t>(c_.conv_size - 1) * 3 * c_.d));
  }

  // Feeds tokens [T][3d] of the sequence in `slot` to the reference.
  void Reference(int slot, bool reset, const float* x, int tokens, double* y) {
    const int width = 3 * c_.d, taps = c_.conv_size;
    std::vector<float>& history = history_[slot];
    if (reset) std::fill(history.begin(), history.end(), 0.0f);
    for (int t = 0; t < tokens; ++t) {
      history.insert(history.end(), x + t * width, x + (t + 1) * width);
      for (int c = 0; c < width; ++c) {
        y[t * width + c] = 0;
        for (int j = 0; j < taps; ++j)
          y[t * width + c] +=
              static_cast<double>(weight_host_[c * taps + j]) * history[j * width + c];
      }
      history.erase(history.begin(), history.begin() + width);
    }
  }
  std::vector<float> RandomInput(int tokens) {
    return RandomQfi(tokens, c_.d, c_.activation, random_);
  }
  ShortConvParams Params(const Buffer& x, const Buffer& y) const {
    return {x.get(), y.get(), weight_.as<float>(), state_.get(), c_.conv_size, c_.d, c_.activation};
  }
  double Tolerance() const { return c_.activation == DType::kBF16 ? 4e-3 : 1e-6; }

  void Decode(const std::vector<int32_t>& slots, const std::vector<uint8_t>& reset) {
    const int batch = static_cast<int>(slots.size()), width = 3 * c_.d;
    const std::vector<float> x = RandomInput(batch);
    std::vector<double> want(x.size());
    for (int b = 0; b < batch; ++b)
      Reference(slots[b], reset[b], &x[b * width], 1, &want[b * width]);
    const Buffer input = Upload(EncodeAll(c_.activation, x)), slot_buffer = Upload(slots);
    const Buffer reset_buffer = Upload(reset);
    ShortConvDecodeParams p;
    p.conv = Params(input, input);  // in place
    p.slots = slot_buffer.as<int32_t>();
    p.reset = reset_buffer.as<uint8_t>();
    p.batch = batch;
    EXPECT_CUDA_OK(LaunchShortConvDecode(p, nullptr));
    EXPECT_LT(RelativeError(DecodeAll(c_.activation, input.Read()), want), Tolerance());
  }

  void Prefill(const std::vector<PrefillSequence>& sequences, int tokens) {
    const int width = 3 * c_.d;
    const std::vector<float> x = RandomInput(tokens);
    std::vector<double> want(x.size());
    for (const PrefillSequence& s : sequences)
      Reference(s.slot, s.reset, &x[s.token_begin * width], s.num_tokens,
                &want[s.token_begin * width]);
    const PrefillPlan plan = PlanPrefill(sequences, 64, DType::kBF16, DType::kF16);
    const Buffer input = Upload(EncodeAll(c_.activation, x)), items = Upload(plan.items);
    const Buffer output(input.bytes());
    ShortConvPrefillParams p;
    p.conv = Params(input, output);
    p.items = items.as<PrefillItem>();
    p.num_items = static_cast<int32_t>(plan.items.size());
    EXPECT_CUDA_OK(LaunchShortConvPrefill(p, nullptr));
    EXPECT_LT(RelativeError(DecodeAll(c_.activation, output.Read()), want), Tolerance());
  }

  Case c_;
  std::mt19937 random_{17};
  std::vector<float> weight_host_;
  Buffer weight_, state_;
  std::vector<std::vector<float>> history_;
};

TEST_P(ShortConvTest, DecodeAndPrefillInTurn) {
  Decode({4, 1, 0, 3}, {1, 1, 1, 1});
  Decode({1, 4}, {0, 0});
  Decode({0, 4, 1}, {0, 0, 1});
  Prefill({{0, 1, 4, false}, {1, 2, 2, true}, {3, 130, 0, false}, {133, 64, 1, true}}, 197);
  Decode({2, 0, 1, 4}, {0, 0, 0, 0});
  Prefill({{0, kLongPrefill + 1, 2, false}, {kLongPrefill + 1, 5, 3, false}}, kLongPrefill + 6);
  Decode({3, 2}, {0, 0});
}

INSTANTIATE_TEST_SUITE_P(All, ShortConvTest,
                         testing::Values(Case{64, 4, DType::kBF16}, Case{128, 4, DType::kF32},
                                         Case{48, 2, DType::kBF16}, Case{192, 8, DType::kF32},
                                         Case{320, 3, DType::kBF16}));

}  // namespace
}  // namespace hgrn2::cuda::test
