// Copies between slabs and float32, and a state that moves in the middle of a ring.
#include "tests/kernels_cuda_recurrence/support.h"

namespace hgrn2::cuda::test {
namespace {

class StateCopyTest : public testing::TestWithParam<DType> {};

TEST_P(StateCopyTest, ScatterThenGatherReturnsTheState) {
  HGRN2_REQUIRE_GPU();
  for (const Shape shape : {Shape{2, 128}, Shape{3, 48}, Shape{1, 256}, Shape{1, 16}}) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    constexpr int kSlots = 5;
    const Slab slab(GetParam(), kSlots, shape);
    const std::vector<int32_t> slots = {4, 0, 2};
    std::vector<float> states(slots.size() * shape.d() * shape.head_dim);
    for (float& x : states) x = normal(random);
    const auto before = slab.state.Read();
    ScatterStates(slab, states, slots);
    const std::vector<double> want(states.begin(), states.end());
    const Buffer no_bound;
    EXPECT_LT(RelativeError(GatherStates(slab, {}, no_bound, slots, DType::kBF16), want),
              StateTolerance(GetParam()));
    const auto after = slab.state.Read();
    const size_t slot_bytes = after.size() / kSlots;
    for (const int untouched : {1, 3})
      EXPECT_EQ(0, std::memcmp(&after[untouched * slot_bytes], &before[untouched * slot_bytes],
                               slot_bytes));
  }
}

// GatherState without `out` leaves in the slab what GatherState with `out` reports.
TEST_P(StateCopyTest, FoldingInPlaceKeepsTheState) {
  HGRN2_REQUIRE_GPU();
  const Shape shape{2, 64};
  constexpr int kSlots = 2, kLength = 8;
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  const Slab slab(GetParam(), kSlots, shape);
  std::vector<float> states(kSlots * shape.d() * shape.head_dim);
  for (float& x : states) x = normal(random);
  ScatterStates(slab, states, {0, 1});
  const Buffer lower_bound = Upload(RandomLowerBound(shape.d(), random));
  std::vector<float> raw(kSlots * kLength * 2 * shape.d());
  for (float& x : raw) x = normal(random);
  const Buffer entries = Upload(EncodeAll(DType::kBF16, raw));
  const Buffer ages = Upload(std::vector<int32_t>{3, 100});  // 3 of the ring, and (100 + 2) % 8 = 6
  const ReplayRing ring = {entries.get(), ages.as<int32_t>(), kLength, 2};
  const auto before = GatherStates(slab, ring, lower_bound, {0, 1}, DType::kBF16);

  const Buffer slots = Upload(std::vector<int32_t>{1, -1, 0});
  GatherStateParams p;
  p.state = slab.view();
  p.ring = ring;
  p.lower_bound = lower_bound.as<float>();
  p.slots = slots.as<int32_t>();
  p.batch = 3;
  p.num_heads = shape.heads;
  p.head_dim = shape.head_dim;
  EXPECT_CUDA_OK(LaunchGatherState(p, nullptr));
  const auto after = GatherStates(slab, {}, lower_bound, {0, 1}, DType::kBF16);
  EXPECT_LT(RelativeError(after, {before.begin(), before.end()}), StateTolerance(GetParam()));
  EXPECT_GT(RelativeError(after, {states.begin(), states.end()}), 0.1)
      << "the ring must have moved it";
}

INSTANTIATE_TEST_SUITE_P(All, StateCopyTest,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace hgrn2::cuda::test
