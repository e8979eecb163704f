// LaunchPrefill and its planner: packed prompts against the float64 recurrence.
#include <algorithm>

#include "tests/kernels_cuda_recurrence/support.h"

namespace hgrn2::cuda::test {
namespace {

TEST(PlanPrefillTest, ItemsCoverEverySequenceOnce) {
  const std::vector<PrefillSequence> sequences = {
      {0, 1, 3, true},
      {1, kLongPrefill, 1, false},
      {kLongPrefill + 1, 3 * kLongPrefill + 7, 0, true}};
  const int tokens = 4 * kLongPrefill + 8;
  for (const DType state : {DType::kF16, DType::kF8E4M3}) {
    const PrefillPlan plan = PlanPrefill(sequences, 256, DType::kBF16, state);
    ASSERT_EQ(plan.items.size(), 2u + 13u);  // 3079 tokens by 256
    EXPECT_TRUE(plan.has_long_sequences);
    EXPECT_LE(static_cast<int>(plan.items.size()), MaxPrefillItems(tokens, 3));
    EXPECT_LE(plan.num_workspace_states,
              MaxPrefillWorkspaceStates(tokens, 3, 256, DType::kBF16, state));
    int next = 0;
    std::vector<bool> used(plan.num_workspace_states);
    for (const PrefillItem& item : plan.items) {
      EXPECT_EQ(item.token_begin, next);
      next += item.num_tokens;
      if (item.workspace < 0) continue;
      ASSERT_LT(item.workspace, plan.num_workspace_states);
      EXPECT_FALSE(used[item.workspace]);
      used[item.workspace] = true;
    }
    EXPECT_EQ(next, tokens);
  }
}

TEST(PlanPrefillTest, WorkspaceBoundHolds) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<PrefillSequence> sequences;
    int tokens = 0;
    const int count = 1 + static_cast<int>(random() % 6);
    for (int s = 0; s < count; ++s) {
      const int length = 1 + static_cast<int>(random() % (3 * kLongPrefill));
      sequences.push_back({tokens, length, s, s % 2 == 0});
      tokens += length;
    }
    for (const DType activation : {DType::kBF16, DType::kF32})
      for (const DType state : {DType::kF16, DType::kF8E4M3})
        for (const int head_dim : {64, 256}) {
          const PrefillPlan plan = PlanPrefill(sequences, head_dim, activation, state);
          EXPECT_LE(plan.num_workspace_states,
                    MaxPrefillWorkspaceStates(tokens, count, head_dim, activation, state));
          EXPECT_LE(static_cast<int>(plan.items.size()), MaxPrefillItems(tokens, count));
        }
  }
}

struct Case {
  Shape shape;
  DType state;
  DType activation;
  std::vector<int> lengths;
  double closed_channels = 0.1;
};

std::string CaseName(const Case& c) {
  std::string name = std::string(Name(c.state)) + "_" + Name(c.activation) + "_h" +
                     std::to_string(c.shape.heads) + "_k" + std::to_string(c.shape.head_dim);
  for (const int length : c.lengths) name += "_" + std::to_string(length);
  if (c.closed_channels == 1) name += "_closed";
  return name;
}

// Rows of others around the sequences' own, which nothing may touch.
constexpr int kRowsBefore = 3, kRowsAfter = 2;

// A packed batch on the device and in float64. Every second sequence continues a random state.
class Prompts {
 public:
  explicit Prompts(const Case& c)
      : c_(c),
        random_(29),
        lower_bound_host_(RandomLowerBound(c.shape.d(), random_)),
        lower_bound_(Upload(lower_bound_host_)),
        slab_(c.state, static_cast<int>(c.lengths.size()) + 2, c.shape) {
    const int count = static_cast<int>(c.lengths.size()), slots = count + 2;
    std::vector<int32_t> order(slots);
    for (int s = 0; s < slots; ++s) order[s] = s;
    std::shuffle(order.begin(), order.end(), random_);
    used_.assign(order.begin(), order.begin() + count);
    initial_.resize(static_cast<size_t>(count) * c.shape.d() * c.shape.head_dim);
    std::normal_distribution<float> normal;
    for (float& x : initial_) x = normal(random_);
    std::vector<PrefillSequence> sequences;
    int row = kRowsBefore;
    for (int s = 0; s < count; ++s) {
      sequences.push_back({row, c.lengths[s], order[s], s % 2 == 0});
      row += c.lengths[s];
    }
    rows_ = row + kRowsAfter;
    const auto qfi = RandomQfi(rows_, c.shape.d(), c.activation, random_, c.closed_channels);
    qfi_ = Upload(EncodeAll(c.activation, qfi));
    plan_ = PlanPrefill(sequences, c.shape.head_dim, c.activation, c.state);
    plan_.items.emplace_back();  // padding
    Reference(sequences, qfi);
  }

  int rows() const { return rows_; }
  // Of the sequences' own rows.
  const std::vector<double>& want() const { return want_; }
  const std::vector<double>& want_state() const { return want_state_; }
  const Slab& slab() const { return slab_; }
  std::vector<float> States() const {
    return GatherStates(slab_, {}, lower_bound_, used_, c_.activation);
  }

  // From the same states each time.
  std::vector<uint8_t> Run(const Buffer& squares = {}) {
    ScatterStates(slab_, initial_, used_);
    const Buffer items = Upload(plan_.items);
    const Buffer o(static_cast<size_t>(rows_) * c_.shape.d() * SizeOf(c_.activation));
    const Buffer workspace(
        PrefillWorkspaceBytes(plan_.num_workspace_states, c_.shape.heads, c_.shape.head_dim));
    PrefillParams p;
    p.qfi = qfi_.get();
    p.o = o.get();
    p.sum_squares = squares.as<float>();
    p.lower_bound = lower_bound_.as<float>();
    p.items = items.as<PrefillItem>();
    p.workspace = workspace.get();
    p.state = slab_.view();
    p.num_items = static_cast<int32_t>(plan_.items.size());
    p.has_long_sequences = plan_.has_long_sequences;
    p.num_heads = c_.shape.heads;
    p.head_dim = c_.shape.head_dim;
    p.activation = c_.activation;
    EXPECT_CUDA_OK(LaunchPrefill(p, nullptr));
    EXPECT_CUDA_OK(cudaDeviceSynchronize());
    return o.Read();
  }

  // Values of the sequences' own rows, of `width` values each; the others must be untouched.
  std::vector<float> OwnRows(DType type, const std::vector<uint8_t>& bytes, int width) const {
    const size_t front = kRowsBefore * width * SizeOf(type),
                 back = bytes.size() - kRowsAfter * width * SizeOf(type);
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (i == front) i = back;
      EXPECT_EQ(bytes[i], 0xFF) << "row of another sequence";
    }
    return DecodeAll(type, {bytes.begin() + front, bytes.begin() + back});
  }

 private:
  void Reference(const std::vector<PrefillSequence>& sequences, const std::vector<float>& qfi) {
    const int d = c_.shape.d();
    ScatterStates(slab_, initial_, used_);
    const auto rounded = States();  // as the slab holds them
    for (size_t s = 0; s < sequences.size(); ++s) {
      ReferenceSequence reference(c_.shape);
      const size_t size = reference.state().size();
      if (!sequences[s].reset)
        std::copy(&rounded[s * size], &rounded[s * size] + size, reference.state().begin());
      for (int t = 0; t < sequences[s].num_tokens; ++t) {
        const size_t row = sequences[s].token_begin + t;
        const auto o = reference.Step(&qfi[row * 3 * d], lower_bound_host_.data());
        want_.insert(want_.end(), o.begin(), o.end());
      }
      want_state_.insert(want_state_.end(), reference.state().begin(), reference.state().end());
    }
  }

  Case c_;
  std::mt19937 random_;
  std::vector<float> lower_bound_host_;
  Buffer lower_bound_, qfi_;
  Slab slab_;
  std::vector<int32_t> used_;   // slots of the sequences
  std::vector<float> initial_;  // their states before rounding
  PrefillPlan plan_;
  int rows_ = 0;
  std::vector<double> want_, want_state_;
};

double OutputTolerance(const Case& c) { return c.activation == DType::kF32 ? 1e-5 : 1e-2; }

class PrefillTest : public testing::TestWithParam<Case> {};

TEST_P(PrefillTest, MatchesFloat64) {
  HGRN2_REQUIRE_GPU();
  const Case& c = GetParam();
  Prompts prompts(c);
  const auto o = prompts.OwnRows(c.activation, prompts.Run(), c.shape.d());
  EXPECT_LT(RelativeError(o, prompts.want()), OutputTolerance(c));
  EXPECT_LT(RelativeError(prompts.States(), prompts.want_state()),
            StateTolerance(c.state) + (c.activation == DType::kF32 ? 1e-5 : 4e-3));
}

std::vector<Case> Cases() {
  const std::vector<int> kMixed = {1, 17, 64, 2, 65, 15, 16, 200, 63};
  const std::vector<int> kLong = {kLongPrefill + 1, 3, 2 * kLongPrefill + 77, kLongPrefill};
  std::vector<Case> cases;
  for (const DType state : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3}) {
    cases.push_back({{2, 128}, state, DType::kBF16, kMixed});
    cases.push_back({{1, 128}, state, DType::kBF16, kLong});
    cases.push_back({{1, 256}, state, DType::kBF16, kMixed});
    cases.push_back({{2, 128}, state, DType::kF32, kMixed});
    cases.push_back({{1, 256}, state, DType::kF32, {40, 1, 9}});
    cases.push_back({{4, 32}, state, DType::kBF16, kMixed});
    cases.push_back({{2, 64}, state, DType::kBF16, kLong});
    cases.push_back({{1, 96}, state, DType::kBF16, kMixed});
  }
  for (const int head_dim : {16, 48, 80, 112, 144, 208}) {
    cases.push_back({{2, head_dim}, DType::kF16, DType::kBF16, {33, 1, 130}});
    cases.push_back({{2, head_dim}, DType::kF8E4M3, DType::kF32, {33, 1, 130}});
  }
  cases.push_back({{1, 256}, DType::kF8E4M3, DType::kBF16, {kLongPrefill + 70, 5}});
  cases.push_back({{2, 128}, DType::kF16, DType::kBF16, kMixed, 1.0});
  cases.push_back({{1, 256}, DType::kF16, DType::kBF16, kMixed, 1.0});
  cases.push_back({{4, 32}, DType::kF16, DType::kBF16, kMixed, 1.0});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, PrefillTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return CaseName(info.param); });

class PrefillSquaresTest : public testing::TestWithParam<Case> {};

TEST_P(PrefillSquaresTest, AreOfTheUnroundedOutput) {
  HGRN2_REQUIRE_GPU();
  const Case& c = GetParam();
  const int groups = c.shape.d() / kSumSquareGroup;
  Prompts prompts(c);
  const Buffer buffer(static_cast<size_t>(prompts.rows()) * groups * sizeof(float));
  const auto o = prompts.OwnRows(c.activation, prompts.Run(buffer), c.shape.d());
  const auto squares = prompts.OwnRows(DType::kF32, buffer.Read(), groups);
  EXPECT_LT(RelativeError(squares, SumSquares(prompts.want())), 2 * OutputTolerance(c));

  // One by one, against the output as it was stored: half a bfloat16 ulp is 2^-8.
  const auto stored = SumSquares({o.begin(), o.end()});
  const bool exact = c.activation == DType::kF32;
  ASSERT_EQ(squares.size(), stored.size());
  for (size_t i = 0; i < stored.size(); ++i) {
    ASSERT_NEAR(squares[i], stored[i], (exact ? 2e-6 : 8e-3) * stored[i])
        << "token " << i / groups << ", group " << i % groups;
  }
  if (!exact) {
    EXPECT_GT(RelativeError(squares, stored), 1e-5) << "summed after rounding";
  }
}

TEST_P(PrefillSquaresTest, ChangeNothingElse) {
  HGRN2_REQUIRE_GPU();
  const Case& c = GetParam();
  Prompts prompts(c);
  const auto o = prompts.Run();
  const auto state = prompts.slab().state.Read(), scales = prompts.slab().scales.Read();
  std::vector<uint8_t> squares;
  for (int run = 0; run < 2; ++run) {
    const Buffer buffer(static_cast<size_t>(prompts.rows()) * c.shape.d() / kSumSquareGroup *
                        sizeof(float));
    EXPECT_EQ(prompts.Run(buffer), o);
    EXPECT_EQ(prompts.slab().state.Read(), state);
    EXPECT_EQ(prompts.slab().scales.Read(), scales);
    if (run > 0) EXPECT_EQ(buffer.Read(), squares);
    squares = buffer.Read();
  }
}

std::vector<Case> SquaresCases() {
  const std::vector<int> kMixed = {1, 63, 64, 17, 65, 200, 2, 16};
  const std::vector<int> kLong = {kLongPrefill + 70, 5, 2 * kLongPrefill + 77, 64};
  std::vector<Case> cases;
  for (const DType activation : {DType::kBF16, DType::kF32}) {
    for (const Shape shape : {Shape{4, 32}, {2, 64}, {2, 96}, {2, 128}, {1, 160}, {2, 256}}) {
      cases.push_back({shape, DType::kF16, activation, kMixed});
      cases.push_back({shape, DType::kF8E4M3, activation, {130, 33}});
    }
    for (const int length : {1, 63, 64, 65, 200})
      cases.push_back({{3, 128}, DType::kF16, activation, {length}});
  }
  for (const Shape shape : {Shape{4, 32}, {2, 64}, {1, 128}, {1, 256}})
    cases.push_back({shape, DType::kF16, DType::kBF16, kLong});
  cases.push_back({{1, 64}, DType::kF16, DType::kF32, kLong});
  cases.push_back({{2, 128}, DType::kF32, DType::kBF16, kMixed, 1.0});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, PrefillSquaresTest, testing::ValuesIn(SquaresCases()),
                         [](const auto& info) { return CaseName(info.param); });

TEST(LaunchPrefillTest, RefusesSquaresOfPartialGroups) {
  const PrefillItem item;
  float squares;
  PrefillParams p;
  p.items = &item, p.num_items = 1, p.num_heads = 1, p.head_dim = 48;
  p.sum_squares = &squares;
  EXPECT_EQ(LaunchPrefill(p, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace hgrn2::cuda::test
