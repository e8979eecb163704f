#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "engine/loader/weights.h"
#include "kernels/reference/hgrn2_reference.h"
#include "tests/loader/status_matchers.h"
#include "tests/testing/oracle.h"
#include "tests/testing/safetensors_builder.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2 {
namespace {

using ::testing::HasSubstr;

ModelConfig SmallConfig(const std::string& more = "") {
  const auto config = ParseModelConfig(
      R"({"hidden_size": 256, "num_hidden_layers": 3, "expand_ratio": 64, "vocab_size": 500)" +
          more + "}",
      "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

struct Moments {
  double mean = 0, stddev = 0;
};

Moments MomentsOf(const TensorView& tensor) {
  Moments m;
  const std::vector<float> values = tensor.ToFloat();
  for (const float x : values) m.mean += x / values.size();
  for (const float x : values) m.stddev += (x - m.mean) * (x - m.mean) / values.size();
  m.stddev = std::sqrt(m.stddev);
  return m;
}

TEST(DummyWeightsTest, ShapesAndDtypes) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const ModelWeights w = MakeDummyWeights(SmallConfig(", \"use_short_conv\": true"), dtype, 1);
    int64_t parameters = 3 * 256;  // lower bounds
    for (const auto& tensor : testing::CheckpointTensors(w)) {
      EXPECT_EQ(tensor.view.dtype, dtype);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.view.data) % 64, 0u) << tensor.name;
      parameters += tensor.view.size();
    }
    EXPECT_EQ(parameters, w.config.NumParameters());
    EXPECT_EQ(w.hash.size(), 16u);
  }
}

TEST(DummyWeightsTest, ScalesAreThoseOfAModel) {
  const ModelWeights w = MakeDummyWeights(SmallConfig(), DType::kF32, 7);
  const Moments norm = MomentsOf(w.norm);
  EXPECT_NEAR(norm.mean, 1, 0.03);
  EXPECT_NEAR(norm.stddev, 0.1, 0.02);
  for (const LayerWeights& layer : w.layers) {
    EXPECT_NEAR(MomentsOf(layer.q_proj).mean, 0, 0.002);
    EXPECT_NEAR(MomentsOf(layer.q_proj).stddev, 1 / 16.0, 0.001);
    EXPECT_NEAR(MomentsOf(layer.down_proj).stddev, 1 / std::sqrt(w.config.intermediate_size),
                0.001);
  }
  EXPECT_NEAR(MomentsOf(w.embeddings).stddev, 0.7, 0.01);
  EXPECT_NEAR(MomentsOf(w.lm_head).stddev, 2 / 16.0, 0.002);
  double largest_bound = 0;
  for (const float lb : w.lower_bounds) {
    EXPECT_GE(lb, 0);
    EXPECT_LT(lb, 1);
    largest_bound = std::max<double>(largest_bound, lb);
  }
  EXPECT_GT(largest_bound, 0.5);
}

TEST(DummyWeightsTest, TheSeedDecides) {
  const ModelWeights a = MakeDummyWeights(SmallConfig(), DType::kBF16, 1);
  const ModelWeights b = MakeDummyWeights(SmallConfig(), DType::kBF16, 1);
  const ModelWeights c = MakeDummyWeights(SmallConfig(), DType::kBF16, 2);
  EXPECT_EQ(a.hash, b.hash);
  EXPECT_NE(a.hash, c.hash);
  const auto tensors_a = testing::CheckpointTensors(a);
  const auto tensors_b = testing::CheckpointTensors(b);
  for (size_t i = 0; i < tensors_a.size(); ++i) {
    EXPECT_EQ(
        std::memcmp(tensors_a[i].view.data, tensors_b[i].view.data, tensors_a[i].view.size() * 2),
        0)
        << tensors_a[i].name;
  }
}

TEST(DummyWeightsTest, TensorsAndElementsDiffer) {
  const ModelWeights w = MakeDummyWeights(SmallConfig(), DType::kF32, 3);
  const std::vector<float> q = w.layers[0].q_proj.ToFloat();
  EXPECT_NE(q, w.layers[0].f_proj.ToFloat());
  EXPECT_NE(q, w.layers[1].q_proj.ToFloat());
  double correlation = 0;  // of neighbours
  for (size_t i = 1; i < q.size(); ++i) correlation += q[i] * q[i - 1] * 256 / q.size();
  EXPECT_NEAR(correlation, 0, 0.02);
}

// Dummy models are benchmarked, so their numbers must stay sane through all layers.
TEST(DummyWeightsTest, ForwardGivesLogitsOfOrderOne) {
  for (const char* more : {"", ", \"tie_word_embeddings\": true", ", \"use_lower_bound\": false"}) {
    const ModelWeights w = MakeDummyWeights(SmallConfig(more), DType::kBF16, 5);
    const reference::Model model = testing::MakeOracle(w);
    reference::State state(model.shape);
    const std::vector<double> logits = reference::Forward(model, {1, 2, 3, 499, 0, 7}, &state);
    double sum = 0;
    for (const double x : logits) sum += x * x / logits.size();
    EXPECT_GT(std::sqrt(sum), 0.5) << more;
    EXPECT_LT(std::sqrt(sum), 5) << more;
  }
}

TEST(DummyWeightsTest, FromAConfigAlone) {
  const testing::TempDir dir;
  dir.Write("config.json", R"({"hidden_size": 128, "num_hidden_layers": 1, "vocab_size": 50,
                               "torch_dtype": "float16", "tie_word_embeddings": true})");
  const auto weights = LoadModelWeights(dir.path(), LoadFormat::kDummy, 9);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->embeddings.dtype, DType::kF16);
  EXPECT_EQ(weights->lm_head.data, weights->embeddings.data);
  EXPECT_EQ(weights->hash, MakeDummyWeights(weights->config, DType::kF16, 9).hash);
}

// The same bytes on every machine.
TEST(DummyWeightsTest, IsRecorded) {
  EXPECT_EQ(MakeDummyWeights(SmallConfig(), DType::kBF16, 42).hash, "16b77a9142461c79");
}

TEST(DummyWeightsTest, MoreThanTheMachineHasIsRefused) {
  const testing::TempDir dir;
  dir.Write("config.json", R"({"hidden_size": 65536, "num_hidden_layers": 1024})");
  const auto weights = LoadModelWeights(dir.path(), LoadFormat::kDummy, 0);
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(weights), HasSubstr("parameters in float32 need"));
}

}  // namespace
}  // namespace hgrn2
