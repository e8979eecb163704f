// Directories that must be refused, each with the sentence a user needs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "engine/loader/shards.h"
#include "engine/loader/weights.h"
#include "tests/loader/status_matchers.h"
#include "tests/loader/tiny_checkpoint.h"
#include "tests/testing/safetensors_builder.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2 {
namespace {

using ::testing::HasSubstr;
using testing::TempDir;

struct BadDirectory {
  const char* name;
  std::function<void(const TempDir&)> make;
  const char* expected;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

std::ostream& operator<<(std::ostream& out, const BadDirectory& bad) { return out << bad.name; }

// A good checkpoint but for what `change` does to it.
std::function<void(const TempDir&)> Changed(std::function<void(TinyCheckpoint&)> change,
                                            int options = TinyCheckpoint::kPlain) {
  return [=](const TempDir& dir) {
    TinyCheckpoint checkpoint(options);
    change(checkpoint);
    checkpoint.Write(dir);
  };
}

std::function<void(const TempDir&)> Without(const std::string& tensor,
                                            int options = TinyCheckpoint::kPlain) {
  return Changed([=](TinyCheckpoint& c) { ASSERT_EQ(c.tensors.erase(tensor), 1u); }, options);
}

std::function<void(const TempDir&)> WithIndex(const std::string& index) {
  return [=](const TempDir& dir) {
    TinyCheckpoint().WriteSharded(dir);
    dir.Write("model.safetensors.index.json", index);
  };
}

std::vector<BadDirectory> MissingFiles() {
  return {
      {"EmptyDirectory", [](const TempDir&) {}, "/config.json: cannot open",
       absl::StatusCode::kNotFound},
      {"NoWeights",
       [](const TempDir& dir) { dir.Write("config.json", TinyCheckpoint().ConfigJson()); },
       "has neither model.safetensors nor model.safetensors.index.json",
       absl::StatusCode::kNotFound},
      {"PytorchOnly",
       [](const TempDir& dir) {
         dir.Write("config.json", TinyCheckpoint().ConfigJson());
         dir.Write("pytorch_model.bin", "PK");
       },
       "has pytorch_model.bin but no model.safetensors: convert the checkpoint to safetensors",
       absl::StatusCode::kNotFound},
      {"PytorchShardsOnly",
       [](const TempDir& dir) {
         dir.Write("config.json", TinyCheckpoint().ConfigJson());
         dir.Write("pytorch_model.bin.index.json", "{}");
       },
       "convert the checkpoint to safetensors", absl::StatusCode::kNotFound},
      {"MissingShard",
       [](const TempDir& dir) {
         TinyCheckpoint().WriteSharded(dir);
         std::filesystem::remove(dir.File("model-00002-of-00002.safetensors"));
       },
       "model-00002-of-00002.safetensors: cannot open", absl::StatusCode::kNotFound},
      {"DanglingLink",
       [](const TempDir& dir) {
         dir.Write("config.json", TinyCheckpoint().ConfigJson());
         std::filesystem::create_symlink(dir.File("gone"), dir.File("model.safetensors"));
       },
       "has neither model.safetensors", absl::StatusCode::kNotFound},
      {"ConfigIsADirectory",
       [](const TempDir& dir) { std::filesystem::create_directory(dir.File("config.json")); },
       "config.json: is not a regular file"},
      {"WeightsAreADirectory",
       [](const TempDir& dir) {
         dir.Write("config.json", TinyCheckpoint().ConfigJson());
         std::filesystem::create_directory(dir.File("model.safetensors"));
       },
       "model.safetensors: is not a regular file"},
      {"WeightsAreAFifo",
       [](const TempDir& dir) {
         dir.Write("config.json", TinyCheckpoint().ConfigJson());
         ASSERT_EQ(mkfifo(dir.File("model.safetensors").c_str(), 0600), 0);
       },
       "model.safetensors: is not a regular file"},
  };
}

std::vector<BadDirectory> BadContents() {
  return {
      {"EmptyConfig", [](const TempDir& dir) { dir.Write("config.json", ""); },
       "config.json: not valid JSON"},
      {"HugeConfig",
       [](const TempDir& dir) { dir.Write("config.json", std::string((1 << 20) + 1, ' ')); },
       "config.json: 1048577 bytes, the limit is 1048576"},
      {"HybridModel", Changed([](TinyCheckpoint& c) { c.config["attn"] = "{\"layers\":[1]}"; }),
       "config.json: attn must be null: hybrid models"},
      {"AttentionResiduals",
       Changed([](TinyCheckpoint& c) { c.config["attnres_block_size"] = "2"; }),
       "config.json: attnres_block_size must be null"},
      {"EmptyWeights",
       [](const TempDir& dir) {
         TinyCheckpoint().Write(dir);
         dir.Write("model.safetensors", "");
       },
       "model.safetensors: 0 bytes are too few"},
      {"TruncatedWeights",
       [](const TempDir& dir) {
         const TinyCheckpoint checkpoint;
         checkpoint.Write(dir);
         const std::string file = checkpoint.Safetensors();
         dir.Write("model.safetensors", file.substr(0, file.size() - 1));
       },
       "(truncated?)"},
      {"TruncatedShard",
       [](const TempDir& dir) {
         TinyCheckpoint().WriteSharded(dir);
         const std::string name = "model-00002-of-00002.safetensors";
         const std::string file = testing::ReadFile(dir.File(name));
         dir.Write(name, file.substr(0, file.size() / 2));
       },
       "model-00002-of-00002.safetensors: "},
      {"LfsPointer",
       [](const TempDir& dir) {
         TinyCheckpoint().Write(dir);
         dir.Write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0");
       },
       "is over the limit of 16777216 bytes (not a safetensors file?)"},
  };
}

std::vector<BadDirectory> BadTensors() {
  return {
      {"NoEmbeddings", Without("model.embeddings.weight"),
       "model.safetensors: tensor \"model.embeddings.weight\" of shape [10, 8] is missing"},
      {"NoHead", Without("lm_head.weight"),
       "tensor \"lm_head.weight\" of shape [10, 8] is missing"},
      {"NoLowerBounds", Without("model.lower_bounds"),
       "tensor \"model.lower_bounds\" of shape [2, 8] is missing"},
      {"NoFinalNorm", Without("model.norm.weight"),
       "\"model.norm.weight\" of shape [8] is missing"},
      {"NoGNorm", Without("model.layers.1.attn.g_norm.weight"),
       "\"model.layers.1.attn.g_norm.weight\" of shape [8] is missing"},
      {"NoProjection", Without("model.layers.0.attn.f_proj.weight"),
       "\"model.layers.0.attn.f_proj.weight\" of shape [8, 8] is missing"},
      {"NoConv", Without("model.layers.1.attn.i_conv1d.weight", TinyCheckpoint::kConv),
       "\"model.layers.1.attn.i_conv1d.weight\" of shape [8, 1, 4] is missing"},
      {"MoreLayersInTheConfig", Changed([](TinyCheckpoint& c) {
         c.config["num_hidden_layers"] = "3";
         c.config["use_lower_bound"] = "false";
       }),
       "\"model.layers.2.attn_norm.weight\" of shape [8] is missing"},
      {"FewerLayersInTheConfig",
       Changed([](TinyCheckpoint& c) { c.config["num_hidden_layers"] = "1"; }),
       "\"model.lower_bounds\" has shape [2, 8], config.json asks for [1, 8]"},
      {"OtherVocabulary", Changed([](TinyCheckpoint& c) { c.config["vocab_size"] = "11"; }),
       "\"model.embeddings.weight\" has shape [10, 8], config.json asks for [11, 8]"},
      {"OtherIntermediateSize",
       Changed([](TinyCheckpoint& c) { c.config["intermediate_size"] = "16"; }),
       "\"model.layers.0.mlp.gate_proj.weight\" has shape [12, 8], config.json asks for [16, 8]"},
      {"TransposedDown", Changed([](TinyCheckpoint& c) {
         c.tensors["model.layers.1.mlp.down_proj.weight"].shape = {12, 8};
       }),
       "\"model.layers.1.mlp.down_proj.weight\" has shape [12, 8], config.json asks for [8, 12]"},
      {"ConvWithoutItsMiddle",
       Changed(
           [](TinyCheckpoint& c) {
             c.tensors["model.layers.0.attn.q_conv1d.weight"].shape = {8, 4};
           },
           TinyCheckpoint::kConv),
       "\"model.layers.0.attn.q_conv1d.weight\" has shape [8, 4], config.json asks for [8, 1, 4]"},
      {"OtherConvSize",
       Changed([](TinyCheckpoint& c) { c.config["conv_size"] = "3"; }, TinyCheckpoint::kConv),
       "has shape [8, 1, 4], config.json asks for [8, 1, 3]"},
      {"Bias", Changed([](TinyCheckpoint& c) {
         c.tensors["model.layers.0.attn.q_proj.bias"] = {DType::kF32, {1}, {0}};
       }),
       "\"model.layers.0.attn.q_proj.weight\" comes with \"model.layers.0.attn.q_proj.bias\", and "
       "biases are not supported"},
      {"LowerBoundsNotFinite", Changed([](TinyCheckpoint& c) {
         c.tensors["model.lower_bounds"].values[3] = std::numeric_limits<float>::quiet_NaN();
       }),
       "\"model.lower_bounds\" holds nan at element 3: weights must be finite"},
      {"WeightNotFinite", Changed([](TinyCheckpoint& c) {
         auto& values = c.tensors["model.layers.1.mlp.down_proj.weight"].values;
         values[95] = -std::numeric_limits<float>::infinity();
         values[17] = values[95];
       }),
       "model.safetensors: tensor \"model.layers.1.mlp.down_proj.weight\" holds -inf at element "
       "17"},
      {"IntegerTensor",
       [](const TempDir& dir) {
         TinyCheckpoint checkpoint;
         checkpoint.tensors.erase("model.norm.weight");
         testing::SafetensorsBuilder builder;
         builder.Add("model.norm.weight", "I32", {8}, std::string(32, '\0'));
         for (const auto& [name, t] : checkpoint.tensors) {
           builder.Add(name, t.dtype, t.shape, t.values);
         }
         dir.Write("config.json", checkpoint.ConfigJson());
         dir.Write("model.safetensors", builder.Build());
       },
       "\"model.norm.weight\" has dtype I32, supported are F32, BF16 and F16"},
  };
}

std::vector<BadDirectory> BadIndexes() {
  return {
      {"IndexNotJson", WithIndex("{"), "model.safetensors.index.json: not valid JSON"},
      {"IndexWithoutMap", WithIndex("{}"), "index.json: weight_map must be an object"},
      {"IndexEmptyMap", WithIndex(R"({"weight_map":{}})"), "weight_map must be an object"},
      {"IndexMapIsAList", WithIndex(R"({"weight_map":["a"]})"), "weight_map must be an object"},
      {"IndexNumber", WithIndex(R"({"weight_map":{"a":1}})"),
       "weight_map[\"a\"] must be the name of a .safetensors file in the same directory, got "
       "number"},
      {"IndexTraversal", WithIndex(R"({"weight_map":{"a":"../x.safetensors"}})"),
       "in the same directory, got ../x.safetensors"},
      {"IndexAbsolute", WithIndex(R"({"weight_map":{"a":"/etc/x.safetensors"}})"),
       "got /etc/x.safetensors"},
      {"IndexBackslash", WithIndex(R"({"weight_map":{"a":"..\\x.safetensors"}})"),
       "in the same directory"},
      {"IndexNul", WithIndex(R"({"weight_map":{"a":"x\u0000.safetensors"}})"),
       "in the same directory"},
      {"IndexOtherFile", WithIndex(R"({"weight_map":{"a":"config.json"}})"), "got config.json"},
      {"IndexDots", WithIndex(R"({"weight_map":{"a":".."}})"), "got .."},
      {"IndexDuplicate", WithIndex(R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})"),
       "key \"a\" occurs twice"},
      {"IndexLacksATensor",
       WithIndex(R"({"weight_map":{"model.norm.weight":"model-00001-of-00002.safetensors"}})"),
       "model.safetensors.index.json: tensor \"model.embeddings.weight\" of shape [10, 8] is "
       "missing"},
      {"IndexPointsToTheWrongShard",
       [](const TempDir& dir) {
         TinyCheckpoint().WriteSharded(dir);
         std::string index = testing::ReadFile(dir.File("model.safetensors.index.json"));
         const std::string from = "\"model.norm.weight\":\"model-00001";
         const size_t at = index.find(from);
         ASSERT_NE(at, std::string::npos);
         index.replace(at, from.size(), "\"model.norm.weight\":\"model-00002");
         dir.Write("model.safetensors.index.json", index);
       },
       "model-00002-of-00002.safetensors: tensor \"model.norm.weight\" of shape [8] is missing"},
  };
}

class LoadErrorsTest : public ::testing::TestWithParam<BadDirectory> {};

TEST_P(LoadErrorsTest, IsRefused) {
  const TempDir dir;
  GetParam().make(dir);
  const auto weights = LoadModelWeights(dir.path(), LoadFormat::kAuto, 0);
  ASSERT_FALSE(weights.ok());
  EXPECT_EQ(weights.status().code(), GetParam().code) << weights.status();
  EXPECT_THAT(Message(weights), HasSubstr(GetParam().expected));
  EXPECT_THAT(Message(weights), HasSubstr(dir.path()));
  EXPECT_TRUE(IsOneSentence(Message(weights)));
}

constexpr auto kCaseName = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Files, LoadErrorsTest, ::testing::ValuesIn(MissingFiles()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Contents, LoadErrorsTest, ::testing::ValuesIn(BadContents()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Tensors, LoadErrorsTest, ::testing::ValuesIn(BadTensors()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Indexes, LoadErrorsTest, ::testing::ValuesIn(BadIndexes()), kCaseName);

TEST(LoadErrorsTest, DirectoryThatIsNotThere) {
  const auto weights = LoadModelWeights("/no/such/directory", LoadFormat::kAuto, 0);
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(weights), HasSubstr("/no/such/directory/config.json: cannot open"));
  EXPECT_FALSE(LoadModelWeights("", LoadFormat::kAuto, 0).ok());
}

TEST(LoadErrorsTest, FileInPlaceOfADirectory) {
  const TempDir dir;
  const auto weights = LoadModelWeights(dir.Write("file", "x"), LoadFormat::kAuto, 0);
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kNotFound);
}

TEST(LoadErrorsTest, TooManyShards) {
  const TempDir dir;
  TinyCheckpoint checkpoint;
  dir.Write("config.json", checkpoint.ConfigJson());
  std::string map;
  for (int i = 0; i < 1001; ++i) {
    const std::string name = std::to_string(i) + ".safetensors";
    dir.Write(name, testing::SafetensorsFromHeader("{}", ""));
    map += (map.empty() ? "\"" : ",\"") + std::to_string(i) + "\":\"" + name + "\"";
  }
  dir.Write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  EXPECT_THAT(Message(LoadModelWeights(dir.path(), LoadFormat::kAuto, 0)),
              HasSubstr("lists more than 1000 files"));
}

}  // namespace
}  // namespace hgrn2
