// Malformed and unsupported files are refused with one sentence that names file, key and type.
#include <gtest/gtest.h>

#include <functional>

#include "tests/tokenizer/test_tokenizers.h"

namespace hgrn2 {
namespace {

using nlohmann::json;

struct Case {
  std::string name;
  std::function<void(json*)> change;
  std::vector<std::string> message_has;
};

json Type(const char* type) { return {{"type", type}}; }

json Template(int id, const char* sequence) {
  return {{"type", "TemplateProcessing"},
          {"single", {{{"SpecialToken", {{"id", "X"}}}}, {{"Sequence", {{"id", sequence}}}}}},
          {"special_tokens", {{"X", {{"id", "X"}, {"ids", {id}}, {"tokens", {"X"}}}}}}};
}

json Added(const char* content) {
  return {{"id", 600}, {"content", content}, {"special", true}, {"normalized", true}};
}

std::vector<Case> Cases() {
  return {
      {"ModelMissing", [](json* d) { d->erase("model"); }, {"model", "an object"}},
      {"ModelType",
       [](json* d) { (*d)["model"]["type"] = "WordPiece"; },
       {"model.type", "WordPiece"}},
      {"ModelTypeNumber", [](json* d) { (*d)["model"]["type"] = 3; }, {"model.type", "a string"}},
      {"VocabArray",
       [](json* d) { (*d)["model"]["vocab"] = json::array(); },
       {"model.vocab", "an object"}},
      {"VocabString",
       [](json* d) { (*d)["model"]["vocab"]["a"] = "1"; },
       {"model.vocab['a']", "integer"}},
      {"VocabNegative",
       [](json* d) { (*d)["model"]["vocab"]["a"] = -1; },
       {"model.vocab['a']", "[0, "}},
      {"VocabHuge",
       [](json* d) { (*d)["model"]["vocab"]["a"] = 4294967296; },
       {"model.vocab['a']", "2097151"}},
      {"VocabUint64",
       [](json* d) { (*d)["model"]["vocab"]["a"] = UINT64_MAX; },
       {"model.vocab['a']"}},
      {"VocabFloat",
       [](json* d) { (*d)["model"]["vocab"]["a"] = 1.5; },
       {"model.vocab['a']", "integer"}},
      {"VocabDuplicateId",
       [](json* d) { (*d)["model"]["vocab"]["zzz"] = 5; },
       {"another token", "5"}},
      {"MergesMissing",
       [](json* d) { (*d)["model"].erase("merges"); },
       {"model.merges", "an array"}},
      {"MergesNumber",
       [](json* d) { (*d)["model"]["merges"][0] = 1; },
       {"model.merges[0]", "a string"}},
      {"MergesNoSpace", [](json* d) { (*d)["model"]["merges"][0] = "ab"; }, {"model.merges[0]"}},
      {"MergesThree",
       [](json* d) {
         (*d)["model"]["merges"][0] = {"a", "b", "c"};
       },
       {"model.merges[0]"}},
      {"MergesUnknown",
       [](json* d) {
         (*d)["model"]["merges"][0] = {"a", "nope"};
       },
       {"merges[0]", "nope"}},
      {"Dropout", [](json* d) { (*d)["model"]["dropout"] = 0.1; }, {"model.dropout"}},
      {"FuseUnk",
       [](json* d) { (*d)["model"]["fuse_unk"] = "yes"; },
       {"model.fuse_unk", "true or false"}},
      {"Normalizer",
       [](json* d) { (*d)["normalizer"] = Type("BertNormalizer"); },
       {"normalizer.type", "BertNormalizer"}},
      {"NormalizerNested",
       [](json* d) {
         (*d)["normalizer"] = {{"type", "Sequence"}, {"normalizers", {Type("NFC"), Type("Nmt")}}};
       },
       {"normalizer.normalizers[1].type", "Nmt"}},
      {"NormalizerString",
       [](json* d) { (*d)["normalizer"] = "NFC"; },
       {"normalizer", "an object"}},
      {"ReplaceEmpty",
       [](json* d) {
         (*d)["normalizer"] = {
             {"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}};
       },
       {"pattern.String", "empty"}},
      {"PreTokenizer",
       [](json* d) { (*d)["pre_tokenizer"] = Type("BertPreTokenizer"); },
       {"pre_tokenizer.type"}},
      {"SplitRegex",
       [](json* d) {
         (*d)["pre_tokenizer"] = {{"type", "Split"},
                                  {"pattern", {{"Regex", "("}}},
                                  {"behavior", "Isolated"},
                                  {"invert", false}};
       },
       {"pre_tokenizer.pattern.Regex", "offset"}},
      {"SplitBehavior",
       [](json* d) {
         (*d)["pre_tokenizer"] = {{"type", "Split"},
                                  {"pattern", {{"String", "a"}}},
                                  {"behavior", "Sideways"},
                                  {"invert", false}};
       },
       {"pre_tokenizer.behavior", "Sideways"}},
      {"Metaspace",
       [](json* d) {
         (*d)["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "ab"}};
       },
       {"pre_tokenizer.replacement"}},
      {"MetaspaceScheme",
       [](json* d) {
         (*d)["pre_tokenizer"] = {{"type", "Metaspace"},
                                  {"replacement", "_"},
                                  {"prepend_scheme", "first"},
                                  {"add_prefix_space", false}};
       },
       {"add_prefix_space"}},
      {"PostProcessor",
       [](json* d) { (*d)["post_processor"] = Type("Magic"); },
       {"post_processor.type", "Magic"}},
      {"TemplateId",
       [](json* d) { (*d)["post_processor"] = Template(600, "A"); },
       {"post_processor", "600"}},
      {"TemplateSequence",
       [](json* d) { (*d)["post_processor"] = Template(1, "B"); },
       {"post_processor.single[1]"}},
      {"Decoder", [](json* d) { (*d)["decoder"] = Type("CTC"); }, {"decoder.type", "CTC"}},
      {"DecoderStrip",
       [](json* d) {
         (*d)["decoder"] = {{"type", "Strip"}, {"content", " "}, {"start", -1}, {"stop", 0}};
       },
       {"decoder.start"}},
      {"AddedObject",
       [](json* d) { (*d)["added_tokens"] = json::object(); },
       {"added_tokens", "an array"}},
      {"AddedContent",
       [](json* d) {
         (*d)["added_tokens"] = json::array({json{{"id", 600}}});
       },
       {"added_tokens[0].content"}},
      {"AddedId",
       [](json* d) {
         (*d)["added_tokens"] = json::array({json{{"id", -5}, {"content", "x"}}});
       },
       {"added_tokens[0].id"}},
      {"AddedLong",
       [](json* d) {
         (*d)["added_tokens"] =
             json::array({json{{"id", 600}, {"content", std::string(5000, 'x')}}});
       },
       {"added_tokens[0]", "1024"}},
      {"AddedAlike",
       [](json* d) {
         (*d)["normalizer"] = Type("Lowercase");
         (*d)["added_tokens"] = json::array({Added("Same"), Added("SAME")});
       },
       {"added_tokens", "another token"}},
      {"AddedVanishes",
       [](json* d) {
         (*d)["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}};
         (*d)["added_tokens"] = json::array({Added("  ")});
       },
       {"added_tokens", "empty"}},
  };
}

class HostileTest : public ::testing::TestWithParam<Case> {};

TEST_P(HostileTest, IsRefusedByName) {
  json document = testing::ByteBase();
  ASSERT_TRUE(ParseTokenizerJson(document.dump(), "some/tokenizer.json").ok());
  GetParam().change(&document);
  const auto result = ParseTokenizerJson(document.dump(), "some/tokenizer.json");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(result.status().message());
  EXPECT_NE(message.find("some/tokenizer.json"), std::string::npos) << message;
  for (const std::string& part : GetParam().message_has) {
    EXPECT_NE(message.find(part), std::string::npos) << message << " lacks " << part;
  }
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_LT(message.size(), 600u);
}

INSTANTIATE_TEST_SUITE_P(All, HostileTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(HostileJsonTest, NotJson) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("nul"), std::string("[]"),
        std::string("\"\xFF\""), std::string("{\"model\":\"\xC3\"}"), std::string("{}{}"),
        std::string(1, '\0'), std::string(1000000, '['),
        std::string("{\"a\":") + std::string(100000, '{')}) {
    EXPECT_EQ(ParseTokenizerJson(text, "t").status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(HostileJsonTest, GapsInIdsAreFine) {
  json document = testing::ByteBase();
  document["model"]["vocab"]["gap"] = 1000;
  const auto tokenizer = testing::MustParse(document);
  EXPECT_EQ(tokenizer->vocab_size(), 1001);
  EXPECT_EQ(tokenizer->Decode({700, 1000, -1, 1001, INT32_MAX, INT32_MIN}, false), "gap");
  EXPECT_EQ(tokenizer->TokenBytes(700), "");
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer->TokenBytes(INT32_MAX), "");
  EXPECT_FALSE(tokenizer->IsSpecial(INT32_MAX));
}

TEST(HostileTextTest, InvalidUtf8IsRefused) {
  const auto json_tokenizer = testing::MustParse(testing::ByteBase());
  const auto model_tokenizer = testing::MustParseModel("tests/data/tokenizer/unigram.model");
  for (const Tokenizer* tokenizer : {json_tokenizer.get(), model_tokenizer.get()}) {
    for (const char* bad : {"\xFF", "abc\xC3", "\xED\xA0\x80", "\xC0\x80"}) {
      EXPECT_EQ(tokenizer->Encode(bad, true).status().code(), absl::StatusCode::kInvalidArgument);
    }
  }
}

// Every truncation and every single-byte change of a model either parses or is refused, and what
// parses works.
TEST(HostileModelTest, TruncatedAndChangedModels) {
  const std::string model = testing::ReadFile("tests/data/tokenizer/bpe.model");
  int parsed = 0;
  for (size_t i = 0; i < model.size(); i += 13) {
    for (const bool truncate : {true, false}) {
      std::string bytes = truncate ? model.substr(0, i) : model;
      if (!truncate) bytes[i] = static_cast<char>(bytes[i] ^ (1 << i % 8));
      const auto tokenizer = ParseSentencePieceModel(bytes, "m", true, true);
      if (!tokenizer.ok()) {
        EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
        continue;
      }
      ++parsed;
      const auto ids = (*tokenizer)->Encode("The old man and the sea\xE2\x96\x81", true);
      ASSERT_TRUE(ids.ok());
      (*tokenizer)->Decode(*ids, true);
    }
  }
  EXPECT_GT(parsed, 10);
}

// The character map of the unigram model is most of the file; damage it everywhere.
TEST(HostileModelTest, ChangedCharacterMap) {
  const std::string model = testing::ReadFile("tests/data/tokenizer/unigram.model");
  for (size_t i = 5003; i < model.size(); i += 4999) {
    std::string bytes = model;
    for (size_t k = 0; k < 3; ++k) bytes[i - k] = static_cast<char>(bytes[i - k] ^ 0x55);
    const auto tokenizer = ParseSentencePieceModel(bytes, "m", true, true);
    if (!tokenizer.ok()) continue;
    const auto ids =
        (*tokenizer)->Encode("\xEF\xAC\x81 \xE3\x8E\x8F Te\xCC\x81st \xE2\x91\xA0", true);
    ASSERT_TRUE(ids.ok());
    (*tokenizer)->Decode(*ids, true);
  }
}

}  // namespace
}  // namespace hgrn2
