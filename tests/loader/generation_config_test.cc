#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/loader/model_config.h"
#include "engine/loader/weights.h"
#include "tests/loader/status_matchers.h"
#include "tests/testing/golden.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2 {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(GenerationConfigTest, AllKeys) {
  const auto d = ParseGenerationConfig(R"({
    "do_sample": true, "temperature": 0.8, "top_p": 0.95, "top_k": 50, "min_p": 0.05,
    "repetition_penalty": 1.1, "max_new_tokens": 256, "eos_token_id": [3, 4],
    "bos_token_id": 1, "transformers_version": "5"})",
                                       "g");
  ASSERT_TRUE(d.ok()) << d.status();
  EXPECT_EQ(d->do_sample, true);
  EXPECT_EQ(d->temperature, 0.8f);
  EXPECT_EQ(d->top_p, 0.95f);
  EXPECT_EQ(d->top_k, 50);
  EXPECT_EQ(d->min_p, 0.05f);
  EXPECT_EQ(d->repetition_penalty, 1.1f);
  EXPECT_EQ(d->max_new_tokens, 256);
  EXPECT_THAT(d->eos_token_ids, ElementsAre(3, 4));
}

TEST(GenerationConfigTest, NullsAndAbsentKeysAreUnset) {
  for (const char* json : {"{}", R"({"do_sample": null, "temperature": null, "top_p": null,
      "top_k": null, "min_p": null, "repetition_penalty": null, "max_new_tokens": null,
      "eos_token_id": null})"}) {
    const auto d = ParseGenerationConfig(json, "g");
    ASSERT_TRUE(d.ok()) << d.status();
    EXPECT_FALSE(d->do_sample || d->temperature || d->top_p || d->top_k || d->min_p ||
                 d->repetition_penalty || d->max_new_tokens);
    EXPECT_THAT(d->eos_token_ids, IsEmpty());
  }
}

TEST(GenerationConfigTest, EdgesOfTheRanges) {
  EXPECT_TRUE(ParseGenerationConfig(R"({"temperature": 0, "top_p": 1, "top_k": -1})", "g").ok());
  // Above 0 as a double, 0 as a float.
  const auto tiny = ParseGenerationConfig(R"({"top_p": 1e-300})", "g");
  ASSERT_TRUE(tiny.ok());
  EXPECT_GT(*tiny->top_p, 0);
}

TEST(GenerationConfigTest, BadValuesAreRefusedByName) {
  const struct {
    const char* json;
    const char* expected;
  } kCases[] = {
      {R"({"temperature": -0.1})", "temperature must be a number in [0, 100], got -0.1"},
      {R"({"temperature": "hot"})", "temperature must be a number"},
      {R"({"top_p": 0})", "top_p must be a number in (0, 1], got 0"},
      {R"({"top_p": 1.01})", "top_p must be a number in (0, 1]"},
      {R"({"top_k": -2})", "top_k must be an integer in [-1, 2147483647]"},
      {R"({"top_k": 1.5})", "top_k must be an integer"},
      {R"({"min_p": 2})", "min_p must be a number in [0, 1]"},
      {R"({"repetition_penalty": 0})", "repetition_penalty must be a number in (0, 100]"},
      {R"({"max_new_tokens": 0})", "max_new_tokens must be an integer in [1, 2147483647]"},
      {R"({"do_sample": "yes"})", "do_sample must be true or false"},
      {R"({"eos_token_id": [[1]]})", "eos_token_id must be an integer"},
      {R"({"eos_token_id": 2147483648})", "eos_token_id must be an integer in [0, 2147483647]"},
      {"[1]", "must hold a JSON object"},
  };
  for (const auto& c : kCases) {
    const auto d = ParseGenerationConfig(c.json, "generation_config.json");
    ASSERT_FALSE(d.ok()) << c.json;
    EXPECT_EQ(d.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(d), HasSubstr(std::string("generation_config.json: ") + c.expected));
  }
}

TEST(LoadGenerationDefaultsTest, EmbeddedModel) {
  const auto d = LoadGenerationDefaults(testing::EmbeddedModelDirectory());
  ASSERT_TRUE(d.ok()) << d.status();
  EXPECT_EQ(d->do_sample, true);
  EXPECT_EQ(d->temperature, 0.8f);
  EXPECT_EQ(d->top_p, 0.95f);
  EXPECT_THAT(d->eos_token_ids, ElementsAre(0));
}

TEST(LoadGenerationDefaultsTest, NoFileIsAllUnset) {
  const auto d = LoadGenerationDefaults(testing::GoldenDirectory("base"));
  ASSERT_TRUE(d.ok()) << d.status();
  EXPECT_FALSE(d->do_sample || d->temperature || d->max_new_tokens);
}

TEST(LoadGenerationDefaultsTest, EosOutsideTheVocabularyIsRefused) {
  const testing::TempDir dir;
  dir.Write("config.json", R"({"vocab_size": 100})");
  dir.Write("generation_config.json", R"({"eos_token_id": [5, 100]})");
  const auto d = LoadGenerationDefaults(dir.path());
  EXPECT_THAT(Message(d), HasSubstr("generation_config.json: eos_token_id 100 must be below "
                                    "vocab_size (100)"));
}

}  // namespace
}  // namespace hgrn2
