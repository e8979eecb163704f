// Long runs cost no more than in proportion to their length (times a logarithm), and no stack.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/tokenizer/test_tokenizers.h"

namespace hgrn2 {
namespace {

using nlohmann::json;

std::string Repeat(std::string_view unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

json WithSplit(const char* regex) {
  json document = testing::ByteBase();
  document["pre_tokenizer"] = {{"type", "Sequence"},
                               {"pretokenizers",
                                {{{"type", "Split"},
                                  {"pattern", {{"Regex", regex}}},
                                  {"behavior", "Isolated"},
                                  {"invert", false}},
                                 {{"type", "ByteLevel"},
                                  {"add_prefix_space", false},
                                  {"trim_offsets", true},
                                  {"use_regex", false}}}}};
  return document;
}

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<std::pair<std::string, std::unique_ptr<Tokenizer>>> Tokenizers() {
  std::vector<std::pair<std::string, std::unique_ptr<Tokenizer>>> list;
  list.emplace_back("bytes", testing::MustParse(testing::ByteBase()));
  list.emplace_back("llama3", testing::MustParse(WithSplit(kLlama3)));
  json nfc = testing::ByteBase();
  nfc["normalizer"] = {{"type", "NFC"}};
  list.emplace_back("nfc", testing::MustParse(nfc));
  list.emplace_back("llama", testing::MustParse(testing::LlamaBase()));
  list.emplace_back("unigram", testing::MustParseModel("tests/data/tokenizer/unigram.model"));
  list.emplace_back("bpe", testing::MustParseModel("tests/data/tokenizer/bpe.model"));
  return list;
}

// A quadratic step over a megabyte takes minutes; the limit is generous for slow machines and
// sanitizers.
TEST(LongTextTest, RunsOfOneMegabyte) {
  for (const auto& [name, tokenizer] : Tokenizers()) {
    for (const std::string_view unit : {"a", " ", "\n", "the ", "\xF0\x9F\x98\x80", "\xCC\x81", "'",
                                        "1", "\t ", "\xE2\x96\x81"}) {
      const std::string text = Repeat(unit, 1 << 20);
      const auto start = std::chrono::steady_clock::now();
      const auto ids = tokenizer->Encode(text, false);
      ASSERT_TRUE(ids.ok()) << name << " " << ids.status();
      const std::string decoded = tokenizer->Decode(*ids, false);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_LT(seconds.count(), 30.0) << name << " '" << unit << "'";
      if (name == "bytes" || name == "llama3") {
        EXPECT_EQ(decoded, text);
      }
    }
  }
}

// The heap of long words and the scan of short ones agree: a word cut at a point where no merge
// reaches across gives the same ids either way.
TEST(LongTextTest, LongAndShortWordsMergeAlike) {
  json document = testing::ByteBase();
  document["pre_tokenizer"]["use_regex"] = false;
  const auto tokenizer = testing::MustParse(document);
  const std::string words[] = {"theoldman", "andthesea", "whereareyougoing", "aaaaaaa",
                               "ininining"};
  for (const std::string& word : words) {
    const auto ids = testing::MustEncode(*tokenizer, word);
    std::vector<int32_t> want;
    std::string text;
    for (int i = 0; i < 50; ++i) {
      text += word + '\x01';  // no merge has this byte
      want.insert(want.end(), ids.begin(), ids.end());
      want.push_back(tokenizer->TokenToId("\xC4\x81"));
    }
    EXPECT_EQ(testing::MustEncode(*tokenizer, text), want) << word;
  }
}

TEST(LongTextTest, ThreadsShareATokenizer) {
  const auto tokenizer = testing::MustParse(WithSplit(kLlama3));
  const auto other = testing::MustParse(testing::LlamaBase());
  const std::string text =
      "Once upon a time there was an old man. \xE6\xBC\xA2\xE5\xAD\x97 12345\n";
  const auto want = testing::MustEncode(*tokenizer, text);
  const auto other_want = testing::MustEncode(*other, text);
  std::vector<std::thread> threads;
  std::vector<int> failures(8);
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        if (testing::MustEncode(*tokenizer, text) != want) ++failures[t];
        // Two tokenizers take turns in this thread's word cache.
        if (i % 10 == 0 && testing::MustEncode(*other, text) != other_want) ++failures[t];
        if (tokenizer->Decode(want, true) != text) ++failures[t];
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, std::vector<int>(8));
}

}  // namespace
}  // namespace hgrn2
