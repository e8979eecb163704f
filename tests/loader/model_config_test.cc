#include "engine/loader/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/loader/status_matchers.h"
#include "tests/testing/golden.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2 {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ModelConfig ParseOk(const std::string& json) {
  const auto config = ParseModelConfig(json, "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(ModelConfig{});
}

TEST(ModelConfigTest, DefaultsAreThe1B3Shape) {
  const ModelConfig c = ParseOk("{}");
  EXPECT_EQ(c.hidden_size, 2048);
  EXPECT_EQ(c.num_layers, 24);
  EXPECT_EQ(c.num_heads, 16);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.intermediate_size, 5632);
  EXPECT_EQ(c.vocab_size, 32000);
  EXPECT_EQ(c.conv_size, 0);
  EXPECT_TRUE(c.use_lower_bound);
  EXPECT_TRUE(c.elementwise_affine);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_FLOAT_EQ(c.norm_eps, 1e-6f);
  EXPECT_EQ(c.torch_dtype, DType::kF32);
  EXPECT_THAT(c.eos_token_ids, IsEmpty());
  EXPECT_EQ(c.bos_token_id, -1);
  EXPECT_EQ(c.StateSize(), 24 * 2048 * 128);
  EXPECT_EQ(c.ConvStateSize(), 0);
}

TEST(ModelConfigTest, EmbeddedModel) {
  const std::string path = testing::EmbeddedModelDirectory() + "/config.json";
  const ModelConfig c = ParseOk(testing::ReadFile(path));
  EXPECT_EQ(c.hidden_size, 256);
  EXPECT_EQ(c.num_layers, 12);
  EXPECT_EQ(c.num_heads, 2);
  EXPECT_EQ(c.intermediate_size, 768);
  EXPECT_EQ(c.torch_dtype, DType::kBF16);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(0));
  EXPECT_EQ(c.bos_token_id, 0);
}

TEST(ModelConfigTest, EitherOfHeadsAndRatioGivesTheOther) {
  EXPECT_EQ(ParseOk(R"({"hidden_size": 512, "num_heads": 8})").head_dim, 64);
  EXPECT_EQ(ParseOk(R"({"hidden_size": 512, "num_heads": 8, "expand_ratio": null})").head_dim, 64);
  EXPECT_EQ(ParseOk(R"({"hidden_size": 512, "expand_ratio": 32})").num_heads, 16);
  EXPECT_EQ(ParseOk(R"({"hidden_size": 512, "num_heads": null})").num_heads, 4);
  EXPECT_EQ(ParseOk(R"({"hidden_size": 512, "num_heads": 2, "expand_ratio": 256})").num_heads, 2);
}

TEST(ModelConfigTest, IntermediateSize) {
  EXPECT_EQ(ParseOk(R"({"intermediate_size": 1000})").intermediate_size, 1000);
  EXPECT_EQ(ParseOk(R"({"hidden_size": 128, "hidden_ratio": 4})").intermediate_size, 512);
  EXPECT_EQ(ParseOk(R"({"hidden_size": 384, "hidden_ratio": 3})").intermediate_size, 768);
  EXPECT_EQ(ParseOk(R"({"hidden_size": 256, "hidden_ratio": 2.67})").intermediate_size, 512);
}

TEST(ModelConfigTest, Options) {
  const ModelConfig c = ParseOk(R"({
    "hidden_size": 256, "num_hidden_layers": 3, "vocab_size": 100, "use_lower_bound": false,
    "use_short_conv": true, "conv_size": 3, "elementwise_affine": false, "norm_eps": 1e-5,
    "tie_word_embeddings": true, "eos_token_id": [2, 7], "bos_token_id": null, "dtype": "float16",
    "hidden_act": "silu", "attn": null, "attnres_block_size": null, "unheard_of": {"a": [1]}})");
  EXPECT_FALSE(c.use_lower_bound);
  EXPECT_EQ(c.conv_size, 3);
  EXPECT_FALSE(c.elementwise_affine);
  EXPECT_FLOAT_EQ(c.norm_eps, 1e-5f);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(2, 7));
  EXPECT_EQ(c.bos_token_id, -1);
  EXPECT_EQ(c.torch_dtype, DType::kF16);
  EXPECT_EQ(c.ConvStateSize(), 3 * 3 * 2 * 256);
}

TEST(ModelConfigTest, ConvSizeCountsOnlyWithShortConv) {
  EXPECT_EQ(ParseOk(R"({"conv_size": 4})").conv_size, 0);
  EXPECT_EQ(ParseOk(R"({"use_short_conv": true})").conv_size, 4);
}

TEST(ModelConfigTest, TorchDtypeGoesBeforeDtype) {
  EXPECT_EQ(ParseOk(R"({"torch_dtype": "bfloat16", "dtype": "float32"})").torch_dtype,
            DType::kBF16);
  EXPECT_EQ(ParseOk(R"({"torch_dtype": null, "dtype": "bfloat16"})").torch_dtype, DType::kBF16);
}

struct BadConfig {
  const char* json;
  const char* expected;
};

class BadConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefusedByName) {
  const auto config = ParseModelConfig(GetParam().json, "dir/config.json");
  ASSERT_FALSE(config.ok()) << GetParam().json;
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(config), ::testing::StartsWith("dir/config.json: "));
  EXPECT_THAT(Message(config), HasSubstr(GetParam().expected));
  EXPECT_TRUE(IsOneSentence(Message(config)));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadConfigTest,
    ::testing::Values(
        BadConfig{"", "not valid JSON at byte"}, BadConfig{"{", "not valid JSON at byte"},
        BadConfig{"[]", "must hold a JSON object"}, BadConfig{"null", "must hold a JSON object"},
        BadConfig{"{} {}", "not valid JSON at byte"},
        BadConfig{"{\"a\": \"\xff\"}", "not valid JSON at byte"},
        BadConfig{R"({"norm_eps": NaN})", "not valid JSON at byte"},
        BadConfig{R"({"norm_eps": 1e999})", "not valid JSON at byte"},
        BadConfig{R"({"hidden_size": 128, "hidden_size": 256})", "\"hidden_size\" occurs twice"},
        BadConfig{R"({"hidden_size": 0})", "hidden_size must be an integer in [1, 65536], got 0"},
        BadConfig{R"({"hidden_size": -128})", "got -128"},
        BadConfig{R"({"hidden_size": 128.5})", "got 128.5"},
        BadConfig{R"({"hidden_size": "128"})", "got \"128\""},
        BadConfig{R"({"hidden_size": true})", "got true"},
        BadConfig{R"({"hidden_size": [128]})", "got array"},
        BadConfig{R"({"hidden_size": 18446744073709551615})", "got 18446744073709551615"},
        BadConfig{R"({"hidden_size": 131072})", "in [1, 65536]"},
        BadConfig{R"({"num_hidden_layers": 0})",
                  "num_hidden_layers must be an integer in [1, 1024]"},
        BadConfig{R"({"num_hidden_layers": 1025})", "got 1025"},
        BadConfig{R"({"vocab_size": 5000000})", "vocab_size must be an integer in [1, 4194304]"},
        BadConfig{R"({"expand_ratio": 100})",
                  "num_heads x expand_ratio must be hidden_size (2048), got 20 x 100"},
        BadConfig{R"({"num_heads": 3})", "must be hidden_size (2048), got 3 x 682"},
        BadConfig{R"({"num_heads": 8, "expand_ratio": 128})", "got 8 x 128"},
        BadConfig{R"({"hidden_size": 64})", "must be hidden_size (64), got 0 x 128"},
        BadConfig{R"({"num_heads": 1})", "num_heads 1 gives heads of 2048, the limit is 1024"},
        BadConfig{R"({"num_heads": 4000})", "got 4000 x 0"},
        BadConfig{R"({"expand_ratio": 2048})", "expand_ratio must be an integer in [1, 1024]"},
        BadConfig{R"({"expand_ratio": 0})", "expand_ratio must be an integer"},
        BadConfig{R"({"intermediate_size": 0})",
                  "intermediate_size must be an integer in [1, 1048576]"},
        BadConfig{R"({"hidden_ratio": 0})", "hidden_ratio must be a number in (0, 1024]"},
        BadConfig{R"({"hidden_ratio": 1000})", "gives intermediate_size"},
        BadConfig{R"({"hidden_ratio": "4"})", "hidden_ratio must be a number"},
        BadConfig{R"({"hidden_size": 1, "expand_ratio": 1, "hidden_ratio": 0.5})",
                  "gives intermediate_size 0"},
        BadConfig{R"({"hidden_act": "gelu"})",
                  "hidden_act must be \"swish\" or \"silu\", got \"gelu\""},
        BadConfig{R"({"hidden_act": 1})", "hidden_act must be a string"},
        BadConfig{R"({"model_type": "gla"})", "model_type must be \"hgrn2\", got \"gla\""},
        BadConfig{R"({"attn": {"layers": [1]}})", "attn must be null: hybrid models"},
        BadConfig{R"({"attn": false})", "attn must be null"},
        BadConfig{R"({"attnres_block_size": 4})",
                  "attnres_block_size must be null: attention residuals"},
        BadConfig{R"({"use_lower_bound": 1})", "use_lower_bound must be true or false, got 1"},
        BadConfig{R"({"use_short_conv": "yes"})", "use_short_conv must be true or false"},
        BadConfig{R"({"conv_size": 0})", "conv_size must be an integer in [1, 64]"},
        BadConfig{R"({"conv_size": 65, "use_short_conv": true})", "got 65"},
        BadConfig{R"({"norm_eps": 0})", "norm_eps must be a number in"},
        BadConfig{R"({"norm_eps": -1e-6})", "norm_eps must be a number in"},
        BadConfig{R"({"norm_eps": 2})", "norm_eps must be a number in"},
        BadConfig{R"({"tie_word_embeddings": 0})", "tie_word_embeddings must be true or false"},
        BadConfig{R"({"elementwise_affine": []})", "elementwise_affine must be true or false"},
        BadConfig{R"({"eos_token_id": 32000})", "eos_token_id must be an integer in [0, 31999]"},
        BadConfig{R"({"eos_token_id": [1, -1]})", "eos_token_id must be an integer in [0, 31999]"},
        BadConfig{R"({"eos_token_id": "</s>"})", "eos_token_id must be an integer"},
        BadConfig{R"({"bos_token_id": 40000})", "bos_token_id must be an integer in [0, 31999]"},
        BadConfig{R"({"torch_dtype": "float64"})",
                  "torch_dtype must be \"float32\", \"float16\" or \"bfloat16\", got \"float64\""},
        BadConfig{R"({"dtype": "int8"})", "dtype must be"}));

TEST(ModelConfigTest, HostileSizesAreRefused) {
  const std::string deep = "{\"a\": " + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_THAT(Message(ParseModelConfig(deep, "c")), HasSubstr("nested deeper than 32 levels"));
  const std::string big = "{\"a\": \"" + std::string(2 << 20, 'x') + "\"}";
  EXPECT_THAT(Message(ParseModelConfig(big, "c")), HasSubstr("the limit is 1048576"));
  std::string ids = "{\"eos_token_id\": [0";
  for (int i = 0; i < 64; ++i) ids += ",0";
  EXPECT_THAT(Message(ParseModelConfig(ids + "]}", "c")), HasSubstr("at most 64 ids"));
  const std::string long_name = "{\"hidden_act\": \"" + std::string(5000, '\x7f') + "\"}";
  EXPECT_TRUE(IsOneSentence(Message(ParseModelConfig(long_name, "c"))));
}

}  // namespace
}  // namespace hgrn2
