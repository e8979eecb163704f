// Incremental text: equal to Decode at the end, valid UTF-8 at every moment, and as early as it can
// be.
#include <gtest/gtest.h>

#include <random>

#include "engine/tokenizer/unicode.h"
#include "tests/tokenizer/test_tokenizers.h"

namespace hgrn2 {
namespace {

using nlohmann::json;

json Llama() {
  json document = testing::LlamaBase();
  document["added_tokens"] = {
      {{"id", 1}, {"content", "<s>"}, {"special", true}, {"normalized", false}},
      {{"id", 2}, {"content", "</s>"}, {"special", true}, {"normalized", false}}};
  return document;
}

json WithDecoder(json document, json decoder) {
  document["decoder"] = std::move(decoder);
  return document;
}

std::vector<std::unique_ptr<Tokenizer>> Tokenizers() {
  const json space = "\xE2\x96\x81";
  const json fuse = {{"type", "Fuse"}};
  const json replace = {
      {"type", "Replace"}, {"pattern", {{"String", "the"}}}, {"content", "<THE>"}};
  const json regex = {{"type", "Replace"}, {"pattern", {{"Regex", "t+"}}}, {"content", "T"}};
  const json trim = {{"type", "Strip"}, {"content", "e"}, {"start", 1}, {"stop", 2}};
  const json meta = {{"type", "Metaspace"}, {"replacement", space}, {"prepend_scheme", "always"}};
  const auto chain = [](std::vector<json> list) {
    return json{{"type", "Sequence"}, {"decoders", std::move(list)}};
  };
  std::vector<std::unique_ptr<Tokenizer>> list;
  list.push_back(testing::MustParse(testing::ByteBase()));
  list.push_back(testing::MustParse(Llama()));
  list.push_back(testing::MustParse(WithDecoder(Llama(), meta)));
  list.push_back(testing::MustParse(WithDecoder(Llama(), nullptr)));
  list.push_back(testing::MustParse(WithDecoder(Llama(), chain({fuse, replace, trim}))));
  list.push_back(testing::MustParse(WithDecoder(Llama(), chain({fuse, regex, meta}))));
  list.push_back(
      testing::MustParse(WithDecoder(Llama(), chain({trim, fuse, {{"type", "ByteFallback"}}}))));
  list.push_back(
      testing::MustParse(WithDecoder(Llama(), {{"type", "BPEDecoder"}, {"suffix", "e"}})));
  list.push_back(testing::MustParseModel("tests/data/tokenizer/unigram.model"));
  list.push_back(testing::MustParseModel("tests/data/tokenizer/bpe.model"));
  return list;
}

TEST(DetokenizerTest, RandomIdsEqualDecode) {
  std::mt19937 rng(7);
  int tokenizer_index = 0;
  for (const auto& tokenizer : Tokenizers()) {
    SCOPED_TRACE(tokenizer_index++);
    // Out-of-range ids on both sides, and a bias towards byte and special tokens.
    std::uniform_int_distribution<int32_t> any(-3, tokenizer->vocab_size() + 3), low(0, 260),
        kind(0, 2);
    for (int round = 0; round < 1000; ++round) {
      std::vector<int32_t> ids(round % 40);
      for (int32_t& id : ids) id = kind(rng) == 0 ? any(rng) : low(rng);
      for (const bool skip : {false, true}) {
        IncrementalDetokenizer stream(*tokenizer, skip);
        std::string text;
        for (const int32_t id : ids) {
          text += stream.Append(id);
          ASSERT_TRUE(unicode::IsValid(text));
        }
        text += stream.Flush();
        ASSERT_EQ(text, tokenizer->Decode(ids, skip));
        ASSERT_TRUE(unicode::IsValid(text));
      }
    }
  }
}

TEST(DetokenizerTest, CharactersComeWhole) {
  const auto tokenizer = testing::MustParse(testing::ByteBase());
  const auto ids = testing::MustEncode(*tokenizer, "\xF0\x9F\x98\x80!");
  ASSERT_EQ(ids.size(), 5u);  // bytes: the training text had no emoji
  IncrementalDetokenizer stream(*tokenizer, true);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(stream.Append(ids[i]), "");
  EXPECT_EQ(stream.Append(ids[3]), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.Append(ids[4]), "!");
  EXPECT_EQ(stream.Append(ids[0]), "");
  EXPECT_EQ(stream.Flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.Flush(), "");  // a new, empty sequence
  EXPECT_EQ(stream.Append(ids[4]), "!");
}

TEST(DetokenizerTest, TextIsNotHeldBack) {
  const auto tokenizer = testing::MustParse(Llama());
  const auto ids = testing::MustEncode(*tokenizer, "the old man and the sea");
  IncrementalDetokenizer stream(*tokenizer, true);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = stream.Append(id);
    EXPECT_FALSE(piece.empty());
    text += piece;
  }
  EXPECT_EQ(text, "the old man and the sea");
  EXPECT_EQ(stream.Flush(), "");
}

TEST(DetokenizerTest, SentencePieceBytesComeAsCharacters) {
  const auto tokenizer = testing::MustParseModel("tests/data/tokenizer/bpe.model");
  const auto byte = [&](const char* hex) {
    return tokenizer->TokenToId(std::string("<0x") + hex + ">");
  };
  IncrementalDetokenizer stream(*tokenizer, true);
  EXPECT_EQ(stream.Append(byte("E2")), "");
  EXPECT_EQ(stream.Append(byte("82")), "");
  EXPECT_EQ(stream.Append(byte("AC")), "\xE2\x82\xAC");
  EXPECT_EQ(stream.Append(byte("E2")), "");
  EXPECT_EQ(stream.Append(byte("41")),
            "\xEF\xBF\xBD"
            "A");
}

// Wherever a text's ids are cut, the continuation after Prime is what the prompt's text lacks.
TEST(DetokenizerTest, PrimedStreamsContinueThePrompt) {
  const std::string text =
      " the old man \xE6\xBC\xA2\xE5\xAD\x97\xF0\x9F\x98\x80\xF0\x9F\x98\x81\xF0\x9F\x98\x82 sea "
      "\xE2\x82\xAC";
  for (const auto& tokenizer :
       {testing::MustParse(testing::ByteBase()), testing::MustParse(Llama()),
        testing::MustParseModel("tests/data/tokenizer/bpe.model")}) {
    const auto ids = testing::MustEncode(*tokenizer, text);
    const std::string whole = tokenizer->Decode(ids, true);
    for (size_t cut = 1; cut <= ids.size(); ++cut) {
      const std::vector<int32_t> prompt(ids.begin(), ids.begin() + static_cast<long>(cut));
      std::string before = tokenizer->Decode(prompt, true);
      // A character that the prompt leaves incomplete is the continuation's.
      while (before.size() >= 3 && before.substr(before.size() - 3) == "\xEF\xBF\xBD") {
        before.resize(before.size() - 3);
      }
      // With byte fallback an incomplete end makes the whole run of bytes unreadable.
      ASSERT_EQ(whole.compare(0, before.size(), before), 0);
      IncrementalDetokenizer stream(*tokenizer, true);
      stream.Prime(prompt);
      std::string after;
      for (size_t i = cut; i < ids.size(); ++i) after += stream.Append(ids[i]);
      after += stream.Flush();
      EXPECT_EQ(before + after, whole) << cut;
    }
  }
}

TEST(DetokenizerTest, ALeadingSpaceOfAContinuationStays) {
  const auto tokenizer = testing::MustParse(Llama());
  const auto ids = testing::MustEncode(*tokenizer, "the the the");
  IncrementalDetokenizer stream(*tokenizer, true);
  stream.Prime({1, ids[0]});
  std::string after;
  for (size_t i = 1; i < ids.size(); ++i) after += stream.Append(ids[i]);
  EXPECT_EQ(tokenizer->Decode({1, ids[0]}, true) + after + stream.Flush(), "the the the");
}

// The bytes of the tokens of a text, joined, are the text (less the leading space rule).
TEST(TokenBytesTest, JoinToTheText) {
  const std::string text = "the old man \xE6\xBC\xA2\xF0\x9F\x98\x80 don't";
  for (const auto& tokenizer :
       {testing::MustParse(testing::ByteBase()), testing::MustParse(Llama()),
        testing::MustParseModel("tests/data/tokenizer/bpe.model")}) {
    std::string joined;
    for (const int32_t id : testing::MustEncode(*tokenizer, text))
      joined += tokenizer->TokenBytes(id);
    EXPECT_EQ(joined, (tokenizer->StripsLeadingSpace() ? " " : "") + text);
  }
}

TEST(TokenBytesTest, SpecialTokens) {
  const auto tokenizer = testing::MustParse(Llama());
  EXPECT_TRUE(tokenizer->IsSpecial(1));
  EXPECT_FALSE(tokenizer->IsSpecial(3));
  EXPECT_EQ(tokenizer->TokenBytes(1), "<s>");
  EXPECT_EQ(tokenizer->TokenBytes(3 + 0xE6), "\xE6");
  EXPECT_EQ(tokenizer->Decode({1, tokenizer->TokenToId("a"), 2}, true), "a");
  EXPECT_EQ(tokenizer->Decode({1, tokenizer->TokenToId("a"), 2}, false), "<s>a</s>");
}

}  // namespace
}  // namespace hgrn2
