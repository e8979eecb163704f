// Checkpoints that load, and what comes out of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "engine/loader/safetensors.h"
#include "engine/loader/tensor_hash.h"
#include "engine/loader/weights.h"
#include "tests/loader/status_matchers.h"
#include "tests/loader/tiny_checkpoint.h"
#include "tests/testing/golden.h"
#include "tests/testing/safetensors_builder.h"

namespace hgrn2 {
namespace {

using ::testing::ElementsAre;
using ::testing::MatchesRegex;

ModelWeights LoadOk(const std::string& directory) {
  auto weights = LoadModelWeights(directory, LoadFormat::kAuto, 0);
  EXPECT_TRUE(weights.ok()) << weights.status();
  return weights.ok() ? *std::move(weights) : ModelWeights{};
}

ModelWeights LoadTiny(const TinyCheckpoint& checkpoint) {
  const testing::TempDir dir;  // gone before the weights: mappings outlive their names
  checkpoint.Write(dir);
  return LoadOk(dir.path());
}

void ExpectTensors(const ModelWeights& weights, const TinyCheckpoint& checkpoint) {
  size_t found = 0;
  for (const testing::NamedTensor& tensor : testing::CheckpointTensors(weights)) {
    const auto it = checkpoint.tensors.find(tensor.name);
    ASSERT_NE(it, checkpoint.tensors.end()) << tensor.name;
    EXPECT_EQ(tensor.view.dtype, it->second.dtype) << tensor.name;
    EXPECT_EQ(tensor.view.shape, it->second.shape) << tensor.name;
    EXPECT_EQ(tensor.view.ToFloat(), it->second.values) << tensor.name;
    EXPECT_EQ(tensor.view.At(3), it->second.values[3]) << tensor.name;
    ++found;
  }
  EXPECT_EQ(found, checkpoint.tensors.size() - checkpoint.tensors.count("model.lower_bounds"));
}

class LoadTest : public ::testing::TestWithParam<std::tuple<DType, int>> {};

TEST_P(LoadTest, EveryTensorArrives) {
  const auto [dtype, options] = GetParam();
  const TinyCheckpoint checkpoint(options, dtype);
  const ModelWeights weights = LoadTiny(checkpoint);
  ASSERT_EQ(weights.layers.size(), 2u);
  ExpectTensors(weights, checkpoint);
  EXPECT_EQ(weights.lower_bounds.size(), 2u * 8);
  EXPECT_THAT(weights.hash, MatchesRegex("[0-9a-f]{16}"));
  const bool conv = options & TinyCheckpoint::kConv;
  EXPECT_EQ(static_cast<bool>(weights.layers[1].q_conv), conv);
  EXPECT_EQ(static_cast<bool>(weights.layers[1].g_norm), !(options & TinyCheckpoint::kNoAffine));
}

INSTANTIATE_TEST_SUITE_P(
    All, LoadTest,
    ::testing::Combine(::testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                       ::testing::Values(TinyCheckpoint::kPlain, TinyCheckpoint::kTied,
                                         TinyCheckpoint::kConv, TinyCheckpoint::kNoLowerBound,
                                         TinyCheckpoint::kNoAffine, 15)));

TEST(LoadWeightsTest, TiedHeadIsTheEmbeddings) {
  const ModelWeights weights = LoadTiny(TinyCheckpoint(TinyCheckpoint::kTied));
  EXPECT_EQ(weights.lm_head.data, weights.embeddings.data);
  EXPECT_THAT(weights.lm_head.shape, ElementsAre(10, 8));
}

TEST(LoadWeightsTest, DtypesMayDifferBetweenTensors) {
  TinyCheckpoint checkpoint;
  checkpoint.tensors["model.norm.weight"].dtype = DType::kF16;
  checkpoint.tensors["model.layers.1.attn.q_proj.weight"].dtype = DType::kBF16;
  ExpectTensors(LoadTiny(checkpoint), checkpoint);
}

TEST(LoadWeightsTest, UnalignedTensorsAreRead) {
  // One byte in front of everything: no float of the file is aligned.
  TinyCheckpoint checkpoint;
  testing::SafetensorsBuilder builder;
  builder.Add("a", "U8", {1}, "x");
  for (const auto& [name, tensor] : checkpoint.tensors) {
    builder.Add(name, tensor.dtype, tensor.shape, tensor.values);
  }
  const testing::TempDir dir;
  dir.Write("config.json", checkpoint.ConfigJson());
  dir.Write("model.safetensors", builder.Build());
  ExpectTensors(LoadOk(dir.path()), checkpoint);
}

TEST(LoadWeightsTest, ShardsAreTheSameModel) {
  const TinyCheckpoint checkpoint;
  const testing::TempDir dir;
  checkpoint.WriteSharded(dir);
  const ModelWeights weights = LoadOk(dir.path());
  ExpectTensors(weights, checkpoint);
  EXPECT_EQ(weights.hash, LoadTiny(checkpoint).hash);
}

TEST(LoadWeightsTest, TheSingleFileGoesBeforeAnIndex) {
  const TinyCheckpoint checkpoint;
  const testing::TempDir dir;
  checkpoint.Write(dir);
  dir.Write("model.safetensors.index.json", "not JSON");
  ExpectTensors(LoadOk(dir.path()), checkpoint);
}

TEST(LoadWeightsTest, LinksAreFollowed) {
  const TinyCheckpoint checkpoint;  // as in a Hugging Face cache, where files link to blobs
  const testing::TempDir blobs;
  checkpoint.Write(blobs);
  const testing::TempDir dir;
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::create_symlink(blobs.File(name), dir.File(name));
  }
  ExpectTensors(LoadOk(dir.path()), checkpoint);
}

TEST(LoadWeightsTest, ExtraTensorsAreIgnored) {
  TinyCheckpoint checkpoint;
  const std::string hash = LoadTiny(checkpoint).hash;
  checkpoint.tensors["model.layers.0.attn.rotary.inv_freq"] = {DType::kF32, {1}, {1}};
  EXPECT_EQ(LoadTiny(checkpoint).hash, hash);
}

TEST(LoadWeightsTest, RelativeDirectoryAndTrailingSlash) {
  const testing::TempDir dir;
  TinyCheckpoint().Write(dir);
  EXPECT_TRUE(LoadModelWeights(dir.path() + "/", LoadFormat::kAuto, 0).ok());
  const auto before = std::filesystem::current_path();
  EXPECT_TRUE(LoadModelWeights(std::filesystem::relative(dir.path()), LoadFormat::kAuto, 0).ok());
  EXPECT_EQ(std::filesystem::current_path(), before);
}

TEST(LoadWeightsTest, LowerBounds) {
  TinyCheckpoint checkpoint;
  std::vector<float>& raw = checkpoint.tensors["model.lower_bounds"].values;
  raw.assign(16, 0.0f);
  raw[1] = 3;        // column 1: layer 0 ahead by 3
  raw[8 + 2] = 200;  // column 2: exp(200) overflows float
  const ModelWeights weights = LoadTiny(checkpoint);
  for (int c = 0; c < 8; ++c) EXPECT_EQ(weights.lower_bounds[c], 0) << c;
  EXPECT_EQ(weights.lower_bounds[8 + 0], 0.5f);
  EXPECT_NEAR(weights.lower_bounds[8 + 1], 1 / (1 + std::exp(3.0)), 1e-9);
  EXPECT_EQ(weights.lower_bounds[8 + 2], 1.0f);
}

// Independent of the loader's own arithmetic, on all layers of the embedded model.
TEST(LoadWeightsTest, LowerBoundsOfTheEmbeddedModel) {
  const std::string directory = testing::EmbeddedModelDirectory();
  const ModelWeights weights = LoadOk(directory);
  const auto file = OpenSafetensors(directory + "/model.safetensors");
  ASSERT_TRUE(file.ok());
  const SafetensorsEntry* entry = file->tensors.Find("model.lower_bounds");
  ASSERT_NE(entry, nullptr);
  const TensorView raw{entry->bytes.data(), *entry->weight_dtype(), entry->shape};
  const int64_t L = weights.config.num_layers;
  const int64_t d = weights.config.hidden_size;
  for (int64_t c = 0; c < d; ++c) {
    long double total = 0, sum = 0;
    for (int64_t l = 0; l < L; ++l) total += std::exp(static_cast<long double>(raw.At(l * d + c)));
    for (int64_t l = 0; l < L; ++l) {
      sum += std::exp(static_cast<long double>(raw.At(l * d + c))) / total;
      const long double first = std::exp(static_cast<long double>(raw.At(c))) / total;
      EXPECT_NEAR(weights.lower_bounds[l * d + c], static_cast<double>(sum - first), 1e-7);
    }
  }
}

TEST(LoadWeightsTest, NoLowerBoundIsZero) {
  const ModelWeights weights = LoadTiny(TinyCheckpoint(TinyCheckpoint::kNoLowerBound));
  EXPECT_EQ(weights.lower_bounds, std::vector<float>(16, 0.0f));
}

TEST(LoadWeightsTest, GoldenCasesAndTheEmbeddedModelHaveTheirParameters) {
  for (const char* name : testing::kGoldenCases) {
    const ModelWeights weights = LoadOk(testing::GoldenDirectory(name));
    int64_t parameters = weights.config.use_lower_bound
                             ? int64_t{weights.config.num_layers} * weights.config.hidden_size
                             : 0;
    for (const auto& tensor : testing::CheckpointTensors(weights)) parameters += tensor.view.size();
    EXPECT_EQ(weights.config.NumParameters(), parameters) << name;
  }
  EXPECT_NEAR(LoadOk(testing::EmbeddedModelDirectory()).config.NumParameters(), 12e6, 0.5e6);
}

// The hash decides whether a saved state may be resumed.
TEST(ModelHashTest, DependsOnWhatTheForwardPassDependsOn) {
  const std::string hash = LoadTiny(TinyCheckpoint()).hash;
  EXPECT_EQ(LoadTiny(TinyCheckpoint()).hash, hash);

  TinyCheckpoint other_names;
  other_names.config["torch_dtype"] = "\"bfloat16\"";
  other_names.config["eos_token_id"] = "[2, 3]";
  other_names.config["unknown"] = "7";
  EXPECT_EQ(LoadTiny(other_names).hash, hash);

  TinyCheckpoint eps;
  eps.config["norm_eps"] = "1e-5";
  EXPECT_NE(LoadTiny(eps).hash, hash);
  TinyCheckpoint heads;
  heads.config["num_heads"] = "4";
  heads.config["expand_ratio"] = "2";
  EXPECT_NE(LoadTiny(heads).hash, hash);
  for (const auto& [name, tensor] : TinyCheckpoint().tensors) {
    TinyCheckpoint changed;
    changed.tensors[name].values.back() += 0.0625f;
    EXPECT_NE(LoadTiny(changed).hash, hash) << name;
  }
  TinyCheckpoint dtype;
  dtype.tensors["model.norm.weight"].dtype = DType::kBF16;
  EXPECT_NE(LoadTiny(dtype).hash, hash);
  TinyCheckpoint swapped;
  swapped.tensors["model.layers.0.mlp.gate_proj.weight"].values.swap(
      swapped.tensors["model.layers.0.mlp.up_proj.weight"].values);
  EXPECT_NE(LoadTiny(swapped).hash, hash);
}

// Saved sessions name it: a change of the function must be a decision.
TEST(ModelHashTest, IsRecorded) { EXPECT_EQ(LoadTiny(TinyCheckpoint()).hash, "ceac6d53cc8ad5fa"); }

TEST(HashBytesTest, SeesEveryByteAndItsPlace) {
  for (const size_t size : {1u, 7u, 8u, 63u, 64u, 65u, 200u, (1u << 20) + 77u}) {
    std::vector<uint8_t> bytes(size, 1);
    const uint64_t hash = HashBytes(bytes, 0);
    EXPECT_NE(HashBytes(bytes, 1), hash);
    EXPECT_NE(HashBytes(std::span(bytes).first(size - 1), 0), hash);
    const size_t stride = size > 1000 ? 4099 : 1;
    for (size_t i = 0; i < size; i += stride) {
      for (const uint8_t flip : {0x01, 0x80}) {
        bytes[i] ^= flip;
        EXPECT_NE(HashBytes(bytes, 0), hash) << size << " " << i;
        bytes[i] ^= flip;
      }
    }
  }
  EXPECT_NE(HashBytes(std::vector<uint8_t>(64), 0), HashBytes(std::vector<uint8_t>(128), 0));
  EXPECT_NE(HashBytes({}, 0), HashBytes(std::vector<uint8_t>(1), 0));
  // Words that change places within a lane, between lanes, and blocks that change places.
  std::vector<uint8_t> bytes(4 << 20);
  std::mt19937 rng(1);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(rng());
  const uint64_t hash = HashBytes(bytes, 0);
  for (const size_t distance : {8u, 64u, 1u << 20}) {
    std::vector<uint8_t> moved = bytes;
    std::swap_ranges(moved.begin(), moved.begin() + 8, moved.begin() + distance);
    ASSERT_TRUE(moved != bytes);
    EXPECT_NE(HashBytes(moved, 0), hash) << distance;
  }
}

}  // namespace
}  // namespace hgrn2
