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

class PrefillTest : public testing::TestWithParam<Case> {};

TEST_P(PrefillTest, MatchesFloat64) {
  HGRN2_REQUIRE_GPU();
  const Case& c = GetParam();
  const int d = c.shape.d(), count = static_cast<int>(c.lengths.size()), slots = count + 2;
  std::mt19937 random(29);
  const auto lower_bound_host = RandomLowerBound(d, random);
  const Buffer lower_bound = Upload(lower_bound_host);
  const Slab slab(c.state, slots, c.shape);

  std::vector<int32_t> order(slots);
  for (int s = 0; s < slots; ++s) order[s] = s;
  std::shuffle(order.begin(), order.end(), random);
  // Every second sequence continues a random state, as the slab rounds it.
  std::vector<float> initial(static_cast<size_t>(count) * d * c.shape.head_dim);
  std::normal_distribution<float> normal;
  for (float& x : initial) x = normal(random);
  const std::vector<int32_t> used(order.begin(), order.begin() + count);
  ScatterStates(slab, initial, used);
  initial = GatherStates(slab, {}, lower_bound, used, c.activation);

  std::vector<PrefillSequence> sequences;
  int tokens = 3;  // rows of others in front
  for (int s = 0; s < count; ++s) {
    sequences.push_back({tokens, c.lengths[s], order[s], s % 2 == 0});
    tokens += c.lengths[s];
  }
  const auto qfi = RandomQfi(tokens, d, c.activation, random, c.closed_channels);
  std::vector<double> want(static_cast<size_t>(tokens - 3) * d), want_state;
  for (int s = 0; s < count; ++s) {
    ReferenceSequence reference(c.shape);
    const size_t size = reference.state().size();
    if (!sequences[s].reset)
      std::copy(&initial[s * size], &initial[s * size] + size, reference.state().begin());
    for (int t = 0; t < c.lengths[s]; ++t) {
      const int row = sequences[s].token_begin + t;
      const auto o =
          reference.Step(&qfi[static_cast<size_t>(row) * 3 * d], lower_bound_host.data());
      std::copy(o.begin(), o.end(), &want[static_cast<size_t>(row - 3) * d]);
    }
    want_state.insert(want_state.end(), reference.state().begin(), reference.state().end());
  }

  const PrefillPlan plan = PlanPrefill(sequences, c.shape.head_dim, c.activation, c.state);
  const Buffer input = Upload(EncodeAll(c.activation, qfi)), items = Upload(plan.items);
  const Buffer o(static_cast<size_t>(tokens) * d * SizeOf(c.activation));
  const Buffer workspace(
      PrefillWorkspaceBytes(plan.num_workspace_states, c.shape.heads, c.shape.head_dim));
  PrefillParams p;
  p.qfi = input.get();
  p.o = o.get();
  p.lower_bound = lower_bound.as<float>();
  p.items = items.as<PrefillItem>();
  p.workspace = workspace.get();
  p.state = slab.view();
  p.num_items = static_cast<int32_t>(plan.items.size());
  p.has_long_sequences = plan.has_long_sequences;
  p.num_heads = c.shape.heads;
  p.head_dim = c.shape.head_dim;
  p.activation = c.activation;
  EXPECT_CUDA_OK(LaunchPrefill(p, nullptr));
  EXPECT_CUDA_OK(cudaDeviceSynchronize());

  const bool exact = c.activation == DType::kF32;
  auto got = DecodeAll(c.activation, o.Read());
  for (int i = 0; i < 3 * d; ++i) EXPECT_TRUE(std::isnan(got[i])) << "row of another sequence";
  got.erase(got.begin(), got.begin() + 3 * d);
  const double tolerance = exact ? 1e-5 : 1e-2;
  EXPECT_LT(RelativeError(got, want), tolerance);
  EXPECT_LT(RelativeError(GatherStates(slab, {}, lower_bound, used, c.activation), want_state),
            StateTolerance(c.state) + (exact ? 1e-5 : 4e-3));
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

}  // namespace
}  // namespace hgrn2::cuda::test
