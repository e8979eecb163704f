// LaunchDecodeStep (plain and replay) against the float64 recurrence.
#include <algorithm>
#include <functional>
#include <map>

#include "tests/kernels_cuda_recurrence/support.h"

namespace hgrn2::cuda::test {
namespace {

struct Case {
  Shape shape;
  DType state;
  DType activation;
  int replay;  // ring length, 1: off
  int phase;
};

std::string CaseName(const Case& c) {
  return std::string(Name(c.state)) + "_" + Name(c.activation) + "_h" +
         std::to_string(c.shape.heads) + "_k" + std::to_string(c.shape.head_dim) + "_n" +
         std::to_string(c.replay) + "_p" + std::to_string(c.phase);
}

// One layer with `slots` sequences on the device and in float64.
class Layer {
 public:
  Layer(const Case& c, int slots, uint32_t seed)
      : c_(c),
        random_(seed),
        slab_(c.state, slots, c.shape),
        ring_(ReplayRingBytes(slots, c.replay, c.shape.d(), c.activation)),
        ages_(Upload(std::vector<int32_t>(slots, 0))),
        lower_bound_host_(RandomLowerBound(c.shape.d(), random_)),
        lower_bound_(Upload(lower_bound_host_)),
        reference_(slots, ReferenceSequence(c.shape)) {}

  ReplayRing ring() const { return {ring_.get(), ages_.as<int32_t>(), c_.replay, c_.phase}; }
  const Slab& slab() const { return slab_; }
  const Buffer& lower_bound() const { return lower_bound_; }
  std::vector<ReferenceSequence>& reference() { return reference_; }

  // One step of `slots`; compares o and its sums of squares. Rows are scattered over the packed
  // batch.
  void Step(const std::vector<int32_t>& slots, const std::vector<uint8_t>& reset, double tolerance,
            double squares_tolerance = 0) {
    const int batch = static_cast<int>(slots.size()), d = c_.shape.d();
    std::vector<int32_t> rows(batch);
    for (int b = 0; b < batch; ++b) rows[b] = b;
    std::shuffle(rows.begin(), rows.end(), random_);
    const std::vector<float> qfi = RandomQfi(batch, d, c_.activation, random_);
    std::vector<double> want(static_cast<size_t>(batch) * d);
    for (int b = 0; b < batch; ++b) {
      if (slots[b] < 0) continue;
      ReferenceSequence& sequence = reference_[slots[b]];
      if (reset[b]) sequence.Reset();
      const auto o =
          sequence.Step(&qfi[static_cast<size_t>(rows[b]) * 3 * d], lower_bound_host_.data());
      std::copy(o.begin(), o.end(), &want[static_cast<size_t>(rows[b]) * d]);
    }
    Run(slots, reset, rows, qfi);
    const auto o = DecodeAll(c_.activation, o_.Read());
    EXPECT_LT(RelativeError(o, want), tolerance);
    if (HasSquares()) {
      EXPECT_LT(RelativeError(DecodeAll(DType::kF32, squares_.Read()), SumSquares(want)),
                squares_tolerance > 0 ? squares_tolerance : 2 * tolerance);
    }
    Advance(slots, reset);
  }

  void Run(const std::vector<int32_t>& slots, const std::vector<uint8_t>& reset,
           const std::vector<int32_t>& rows, const std::vector<float>& qfi) {
    const int d = c_.shape.d();
    const Buffer slot_buffer = Upload(slots), reset_buffer = Upload(reset),
                 row_buffer = Upload(rows);
    const Buffer input = Upload(EncodeAll(c_.activation, qfi));
    o_ = Buffer(slots.size() * d * SizeOf(c_.activation));
    squares_ = Buffer(slots.size() * d / kSumSquareGroup * sizeof(float));
    DecodeStepParams p;
    p.qfi = input.get();
    p.o = o_.get();
    p.sum_squares = HasSquares() ? squares_.as<float>() : nullptr;
    p.lower_bound = lower_bound_.as<float>();
    p.slots = slot_buffer.as<int32_t>();
    p.token_rows = row_buffer.as<int32_t>();
    p.reset = reset_buffer.as<uint8_t>();
    p.state = slab_.view();
    p.ring = ring();
    p.batch = static_cast<int32_t>(slots.size());
    p.num_heads = c_.shape.heads;
    p.head_dim = c_.shape.head_dim;
    p.activation = c_.activation;
    if (claims_) p.work_counters = counters_.as<uint32_t>();
    if (start_prompts_) {
      start_prompts_();
      p.after_prefill = p.programmatic = true;
      p.late_processors = c_.shape.heads;
    }
    EXPECT_CUDA_OK(LaunchDecodeStep(p, nullptr));
    EXPECT_CUDA_OK(cudaDeviceSynchronize());
  }

  // From now on blocks take their work piece by piece.
  void ClaimWork() { claims_ = true; }
  // Launches prompts before every step, on its stream.
  void StartPrompts(std::function<void()> launch) { start_prompts_ = std::move(launch); }
  std::vector<uint32_t> counters() const {
    std::vector<uint32_t> values(2);
    EXPECT_CUDA_OK(cudaMemcpy(values.data(), counters_.get(), 8, cudaMemcpyDefault));
    return values;
  }

  void Advance(const std::vector<int32_t>& slots, const std::vector<uint8_t>& written) {
    const Buffer slot_buffer = Upload(slots), written_buffer = Upload(written);
    EXPECT_CUDA_OK(
        LaunchAdvanceAges({ages_.as<int32_t>(), slot_buffer.as<int32_t>(),
                           written_buffer.as<uint8_t>(), static_cast<int32_t>(slots.size())},
                          nullptr));
    EXPECT_CUDA_OK(cudaDeviceSynchronize());
  }

  const Buffer& o() const { return o_; }
  const Buffer& squares() const { return squares_; }
  bool HasSquares() const { return c_.shape.head_dim % kSumSquareGroup == 0; }
  std::mt19937& random() { return random_; }

 private:
  Case c_;
  std::mt19937 random_;
  Slab slab_;
  Buffer ring_;
  Buffer ages_;
  std::vector<float> lower_bound_host_;
  Buffer lower_bound_;
  std::vector<ReferenceSequence> reference_;
  Buffer o_, squares_;
  bool claims_ = false;
  std::function<void()> start_prompts_;
  Buffer counters_ = Upload(std::vector<uint32_t>{0, 0});
};

// Measured errors are about half of these.
double OutputTolerance(const Case& c) {
  const double activation = c.activation == DType::kBF16 ? 4e-3 : 2e-6;
  const double state =
      c.state == DType::kF32 ? 0 : StateTolerance(c.state) * (c.replay > 1 ? 1 : 2);
  return activation + state;
}

class DecodeStepTest : public testing::TestWithParam<Case> {};

TEST_P(DecodeStepTest, MatchesFloat64OverManySteps) {
  HGRN2_REQUIRE_GPU();
  const Case& c = GetParam();
  constexpr int kSlots = 7;
  Layer layer(c, kSlots, 11);
  std::vector<int32_t> all(kSlots);
  for (int s = 0; s < kSlots; ++s) all[s] = s;
  layer.Step(all, std::vector<uint8_t>(kSlots, 1), OutputTolerance(c));  // poisoned slots start
  for (int step = 0; step < 2 * std::max(c.replay, 8) + 3; ++step) {
    std::shuffle(all.begin(), all.end(), layer.random());
    const int batch =
        1 + static_cast<int>(layer.random()() % kSlots);  // slots get different phases
    std::vector<int32_t> slots(all.begin(), all.begin() + batch);
    std::vector<uint8_t> reset(batch, 0);
    if (step % 5 == 2) reset[0] = 1;
    if (step % 3 == 0) slots.push_back(-1), reset.push_back(0);
    layer.Step(slots, reset, OutputTolerance(c));
  }
  std::vector<double> want;
  for (int s = 0; s < kSlots; ++s) {
    const auto& state = layer.reference()[s].state();
    want.insert(want.end(), state.begin(), state.end());
  }
  std::sort(all.begin(), all.end());
  EXPECT_LT(
      RelativeError(
          GatherStates(layer.slab(), layer.ring(), layer.lower_bound(), all, c.activation), want),
      2 * StateTolerance(c.state));
}

// A row's bits depend on nothing but its own sequence.
TEST_P(DecodeStepTest, ResultDoesNotDependOnTheBatch) {
  HGRN2_REQUIRE_GPU();
  const Case& c = GetParam();
  Layer alone(c, 1, 5), together(c, 9, 5);
  const int d = c.shape.d();
  std::vector<int32_t> slots = {3, 8, 0, 5, 1, 7, 2, 4, 6}, rows(9);
  for (int b = 0; b < 9; ++b) rows[b] = b;
  for (int step = 0; step < c.replay + 3; ++step) {
    const std::vector<uint8_t> reset(9, step == 0);
    const std::vector<float> qfi = RandomQfi(9, d, c.activation, together.random());
    together.Run(slots, reset, rows, qfi);
    together.Advance(slots, reset);
    const std::vector<float> first(qfi.begin() + 4 * 3 * d, qfi.begin() + 5 * 3 * d);
    alone.Run({0}, {reset[0]}, {0}, first);
    alone.Advance({0}, {reset[0]});
    const auto many = together.o().Read(), one = alone.o().Read();
    EXPECT_EQ(0, std::memcmp(&many[4 * one.size()], one.data(), one.size())) << "step " << step;
  }
}

// Batches in which a block works through a long list of sequences (more than a warp's width), with
// folds and resets among them, against a batch in which each has a block of its own.
class LongBatchTest : public testing::TestWithParam<DType> {};

TEST_P(LongBatchTest, GivesTheBitsOfAShortOne) {
  HGRN2_REQUIRE_GPU();
  constexpr int kSequences = 5, kBatch = 830;
  const Case c = {{16, 128}, GetParam(), DType::kBF16, 16, 3};
  Layer few(c, kSequences, 5), many(c, kBatch, 5);
  const int d = c.shape.d();
  const size_t row_bytes = static_cast<size_t>(d) * SizeOf(c.activation);
  std::vector<int32_t> few_slots(kSequences), many_slots(kBatch);
  for (int s = 0; s < kSequences; ++s) few_slots[s] = s;
  for (int s = 0; s < kBatch; ++s) many_slots[s] = s;
  for (int step = 0; step < 24; ++step) {
    std::vector<uint8_t> few_reset(kSequences, step == 0), many_reset(kBatch);
    few_reset[step % kSequences] |= step < 2 * kSequences;  // different ages
    const std::vector<float> qfi = RandomQfi(kSequences, d, c.activation, few.random());
    std::vector<float> many_qfi(static_cast<size_t>(kBatch) * 3 * d);
    for (int s = 0; s < kBatch; ++s) {
      many_reset[s] = few_reset[s % kSequences];
      std::copy_n(&qfi[static_cast<size_t>(s % kSequences) * 3 * d], 3 * d,
                  &many_qfi[static_cast<size_t>(s) * 3 * d]);
    }
    few.Run(few_slots, few_reset, few_slots, qfi);
    few.Advance(few_slots, few_reset);
    many.Run(many_slots, many_reset, many_slots, many_qfi);
    many.Advance(many_slots, many_reset);
    const std::vector<uint8_t> want = few.o().Read(), got = many.o().Read();
    for (int s = 0; s < kBatch; ++s)
      ASSERT_EQ(0, std::memcmp(&got[s * row_bytes], &want[s % kSequences * row_bytes], row_bytes))
          << "step " << step << ", row " << s;
  }
  const std::vector<int32_t> last = {kBatch - 5, kBatch - 4, kBatch - 3, kBatch - 2, kBatch - 1};
  EXPECT_EQ(GatherStates(few.slab(), few.ring(), few.lower_bound(), few_slots, c.activation),
            GatherStates(many.slab(), many.ring(), many.lower_bound(), last, c.activation));
}

INSTANTIATE_TEST_SUITE_P(All, LongBatchTest,
                         testing::Values(DType::kF16, DType::kBF16, DType::kF8E4M3),
                         [](const auto& info) { return std::string(Name(info.param)); });

// Prompts that take most multiprocessors for longer than a decode step.
class LongPrompts {
 public:
  explicit LongPrompts(Shape shape) : slab_(DType::kF16, kPrompts, shape) {
    std::vector<PrefillSequence> sequences;
    for (int s = 0; s < kPrompts; ++s) sequences.push_back({s * kTokens, kTokens, s, true});
    const PrefillPlan plan = PlanPrefill(sequences, shape.head_dim, DType::kBF16, DType::kF16);
    const size_t rows = static_cast<size_t>(kPrompts) * kTokens;
    qfi_ = Buffer(rows * 3 * shape.d() * 2), o_ = Buffer(rows * shape.d() * 2);
    EXPECT_CUDA_OK(cudaMemset(qfi_.get(), 0, qfi_.bytes()));
    bound_ = Upload(std::vector<float>(shape.d(), 0.5f)), items_ = Upload(plan.items);
    workspace_ =
        Buffer(PrefillWorkspaceBytes(plan.num_workspace_states, shape.heads, shape.head_dim));
    params_.qfi = qfi_.get(), params_.o = o_.get();
    params_.lower_bound = bound_.as<float>();
    params_.items = items_.as<PrefillItem>();
    params_.workspace = workspace_.get();
    params_.state = slab_.view();
    params_.num_items = static_cast<int32_t>(plan.items.size());
    params_.has_long_sequences = plan.has_long_sequences;
    params_.num_heads = shape.heads, params_.head_dim = shape.head_dim;
    params_.programmatic = true;
  }
  void Start() { EXPECT_CUDA_OK(LaunchPrefill(params_, nullptr)); }

 private:
  static constexpr int kPrompts = 7, kTokens = 1024;
  Slab slab_;
  Buffer qfi_, o_, bound_, items_, workspace_;
  PrefillParams params_;
};

// Work that blocks take piece by piece gives the bits of fixed parts, also if most blocks start
// late, and the counters are as they were after every launch.
class ClaimedWorkTest : public testing::TestWithParam<std::tuple<DType, int, bool>> {};

TEST_P(ClaimedWorkTest, GivesTheBitsOfFixedParts) {
  HGRN2_REQUIRE_GPU();
  const auto [dtype, batch, late] = GetParam();
  constexpr int kReplay = 8;
  const Case c = {{16, 128}, dtype, DType::kBF16, kReplay, 3};
  Layer fixed(c, batch, 5), claimed(c, batch, 5);
  claimed.ClaimWork();
  LongPrompts prompts(c.shape);
  if (late) claimed.StartPrompts([&] { prompts.Start(); });
  std::vector<int32_t> slots(batch), rows(batch);
  for (int b = 0; b < batch; ++b) slots[b] = b, rows[b] = batch - 1 - b;
  for (int step = 0; step < 2 * kReplay + 3; ++step) {
    std::vector<uint8_t> reset(batch);
    for (int b = 0; b < batch; ++b) reset[b] = step == 0 || b % kReplay == step;  // different ages
    std::vector<int32_t> fed = slots;
    if (step > 0 && batch > 2) fed[(step + 1) % batch] = -1;  // padding
    const std::vector<float> qfi = RandomQfi(batch, c.shape.d(), DType::kBF16, fixed.random());
    for (Layer* layer : {&fixed, &claimed}) {
      layer->Run(fed, reset, rows, qfi);
      layer->Advance(fed, reset);
    }
    ASSERT_EQ(fixed.o().Read(), claimed.o().Read()) << "step " << step;
    ASSERT_EQ(fixed.squares().Read(), claimed.squares().Read()) << "step " << step;
    ASSERT_EQ(claimed.counters(), (std::vector<uint32_t>{0, 0})) << "step " << step;
  }
  EXPECT_EQ(
      GatherStates(fixed.slab(), fixed.ring(), fixed.lower_bound(), slots, DType::kBF16),
      GatherStates(claimed.slab(), claimed.ring(), claimed.lower_bound(), slots, DType::kBF16));
}

INSTANTIATE_TEST_SUITE_P(All, ClaimedWorkTest,
                         testing::Combine(testing::Values(DType::kF16, DType::kBF16,
                                                          DType::kF8E4M3),
                                          testing::Values(1, 2, 17, 64, 301), testing::Bool()),
                         [](const auto& info) {
                           return std::string(Name(std::get<0>(info.param))) + "_b" +
                                  std::to_string(std::get<1>(info.param)) +
                                  (std::get<2>(info.param) ? "_late" : "");
                         });

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const DType kStates[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3};
  for (const DType state : kStates) {
    for (const DType activation : {DType::kBF16, DType::kF32}) {
      cases.push_back({{3, 128}, state, activation, 1, 0});
      cases.push_back({{2, 128}, state, activation, 16, 5});
    }
    cases.push_back({{2, 128}, state, DType::kBF16, 32, 9});
    cases.push_back({{3, 128}, state, DType::kBF16, 2, 0});
    cases.push_back({{4, 32}, state, DType::kBF16, 16, 0});
    cases.push_back({{2, 64}, state, DType::kBF16, 4, 3});
    cases.push_back({{2, 96}, state, DType::kF32, 8, 1});
    cases.push_back({{1, 256}, state, DType::kBF16, 32, 31});
    cases.push_back({{1, 256}, state, DType::kF32, 1, 0});
    cases.push_back({{3, 48}, state, DType::kBF16, 2, 1});
    cases.push_back({{1, 16}, state, DType::kF32, 3, 0});
    cases.push_back({{1, 208}, state, DType::kF32, 5, 4});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, DecodeStepTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return CaseName(info.param); });

// The product's default: what a float16 state with a ring of 16 costs against a float32 state.
TEST(DecodeStepTest, Float16WithReplayStaysNearFloat32) {
  HGRN2_REQUIRE_GPU();
  const Shape shape{2, 128};
  Layer layer({shape, DType::kF16, DType::kF32, 16, 0}, 3, 23);
  for (int step = 0; step < 300; ++step)
    layer.Step({2, 0, 1}, std::vector<uint8_t>(3, step == 0), 1e-4);
}

// bfloat16 activations round o, but not its sums of squares: these show the precision of everything
// before. Rounding the state alone moves them by 4e-5, weights of one 16-bit part instead of two by
// 1.2e-4 (simulated in float64).
TEST(DecodeStepTest, SumsOfSquaresKeepFloat16sPrecision) {
  HGRN2_REQUIRE_GPU();
  const Shape shape{2, 128};
  Layer layer({shape, DType::kF16, DType::kBF16, 16, 0}, 3, 23);
  for (int step = 0; step < 300; ++step)
    layer.Step({2, 0, 1}, std::vector<uint8_t>(3, step == 0), 4e-3, 8e-5);
}

TEST(DecodeStepTest, RefusesWhatItCannotDo) {
  DecodeStepParams p;
  EXPECT_EQ(LaunchDecodeStep(p, nullptr), cudaSuccess);  // empty batch
  p.batch = 1, p.num_heads = 1, p.head_dim = 40;
  EXPECT_EQ(LaunchDecodeStep(p, nullptr), cudaErrorInvalidValue);
  p.head_dim = 64, p.ring.length = kMaxReplay + 1;
  EXPECT_EQ(LaunchDecodeStep(p, nullptr), cudaErrorInvalidValue);
  p.ring.length = 1, p.state.dtype = DType::kF8E4M3;
  EXPECT_EQ(LaunchDecodeStep(p, nullptr), cudaErrorInvalidValue);  // no scales
}

}  // namespace
}  // namespace hgrn2::cuda::test
