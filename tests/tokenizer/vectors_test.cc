// Recorded results of the packages `tokenizers` and `sentencepiece`
// (tools/make_tokenizer_vectors.py) and of the embedded model's training code.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/tokenizer/test_tokenizers.h"

namespace hgrn2 {
namespace {

using nlohmann::json;

json Vectors() {
  return json::parse(testing::ReadFile("tests/data/tokenizer/vectors.json"))["vectors"];
}

// A variant's document: the base it was made of, with its changes.
json Document(const json& entry) {
  json document = entry["base"] == "llama_base" ? testing::LlamaBase() : testing::ByteBase();
  for (const auto& [key, value] : entry["changes"].items()) document[key] = value;
  for (const auto& [key, value] : entry["model"].items()) document["model"][key] = value;
  if (entry.contains("merges_as_strings")) {
    for (json& merge : document["model"]["merges"]) {
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
  }
  return document;
}

std::string Streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  IncrementalDetokenizer stream(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) text += stream.Append(id);
  return text + stream.Flush();
}

class VectorsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(VectorsTest, EqualTheReferencePackage) {
  const json entry = Vectors()[GetParam()];
  const bool is_model = GetParam().find(".model") != std::string::npos;
  const auto tokenizer = is_model ? testing::MustParseModel("tests/data/tokenizer/" + GetParam())
                                  : testing::MustParse(Document(entry));
  ASSERT_GE(entry["cases"].size(), 40u);
  for (const json& c : entry["cases"]) {
    const auto text = c[0].get<std::string>();
    SCOPED_TRACE(c[0].dump());
    const auto ids = c[1].get<std::vector<int32_t>>();
    EXPECT_EQ(testing::MustEncode(*tokenizer, text, false), ids);
    EXPECT_EQ(testing::MustEncode(*tokenizer, text, true), c[2].get<std::vector<int32_t>>());
    EXPECT_EQ(tokenizer->Decode(ids, false), c[3].get<std::string>());
    EXPECT_EQ(tokenizer->Decode(ids, true), c[4].get<std::string>());
    EXPECT_EQ(Streamed(*tokenizer, ids, false), c[3].get<std::string>());
    EXPECT_EQ(Streamed(*tokenizer, ids, true), c[4].get<std::string>());
  }
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  const json vectors = Vectors();
  for (const auto& [name, entry] : vectors.items()) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, VectorsTest, ::testing::ValuesIn(Names()), [](const auto& info) {
  std::string name = info.param;
  for (char& c : name) c = c == '-' || c == '.' ? '_' : c;
  return name;
});

TEST(EmbeddedTokenizerTest, ReferenceCases) {
  const auto tokenizer = LoadTokenizer(HGRN2_SOURCE_DIR "/models/hgrn2-gutenberg-12m");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_NE(*tokenizer, nullptr);
  EXPECT_EQ((*tokenizer)->vocab_size(), 4096);
  EXPECT_TRUE((*tokenizer)->IsSpecial(0));
  EXPECT_FALSE((*tokenizer)->IsSpecial(1));
  EXPECT_FALSE((*tokenizer)->StripsLeadingSpace());
  EXPECT_EQ((*tokenizer)->TokenToId("<|endoftext|>"), 0);
  EXPECT_EQ((*tokenizer)->TokenToId("no such token"), -1);
  const json reference = json::parse(testing::ReadFile("tests/data/eval/reference.json"));
  ASSERT_GE(reference["tokenizer_cases"].size(), 50u);
  for (const json& c : reference["tokenizer_cases"]) {
    const auto text = c["text"].get<std::string>();
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(testing::MustEncode(**tokenizer, text), ids) << c.dump();
    EXPECT_EQ((*tokenizer)->Decode(ids, false), text) << c.dump();
  }
  for (const auto& [prompt, g] : reference["generations"].items()) {
    const auto ids = g["greedy_ids"].get<std::vector<int32_t>>();
    EXPECT_EQ((*tokenizer)->Decode(ids, true), g["greedy_text"].get<std::string>());
  }
}

class LoadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::filesystem::path folder_;
};

TEST_F(LoadTest, NoTokenizerIsNotAnError) {
  const auto tokenizer = LoadTokenizer(folder_.string());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*tokenizer, nullptr);
}

TEST_F(LoadTest, SentencePieceAddsBosUnlessToldNotTo) {
  Write("tokenizer.model", testing::ReadFile("tests/data/tokenizer/bpe.model"));
  auto tokenizer = LoadTokenizer(folder_.string());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<int32_t> plain = testing::MustEncode(**tokenizer, "the sea", false);
  std::vector<int32_t> with_bos = plain;
  with_bos.insert(with_bos.begin(), 1);
  EXPECT_EQ(testing::MustEncode(**tokenizer, "the sea", true), with_bos);

  Write("tokenizer_config.json", R"({"add_bos_token": false, "add_eos_token": true})");
  tokenizer = LoadTokenizer(folder_.string());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<int32_t> with_eos = plain;
  with_eos.push_back(2);
  EXPECT_EQ(testing::MustEncode(**tokenizer, "the sea", true), with_eos);
}

TEST_F(LoadTest, ErrorsNameTheFile) {
  Write("tokenizer.model", "not a model");
  auto tokenizer = LoadTokenizer(folder_.string());
  EXPECT_NE(std::string(tokenizer.status().message()).find("tokenizer.model"), std::string::npos)
      << tokenizer.status();
  Write("tokenizer.json", "{");
  tokenizer = LoadTokenizer(folder_.string());
  EXPECT_NE(std::string(tokenizer.status().message()).find("tokenizer.json"), std::string::npos)
      << tokenizer.status();
}

}  // namespace
}  // namespace hgrn2
