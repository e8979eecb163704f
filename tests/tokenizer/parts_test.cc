// The parts of the pipeline by hand-made cases, chiefly what the reference package gets wrong or
// cannot be asked for.
#include <gtest/gtest.h>

#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/merge_table.h"
#include "engine/tokenizer/normalizers.h"
#include "engine/tokenizer/pre_tokenizers.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/utf8_stream.h"

namespace hgrn2 {
namespace {

TEST(UnicodeTest, ValidPrefix) {
  EXPECT_TRUE(unicode::IsValid("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC3", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xFF"}) {
    EXPECT_EQ(unicode::ValidPrefix(std::string("ab") + bad), 2u) << bad;
  }
}

TEST(UnicodeTest, EveryCodePointSurvivesAppendAndNext) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c == 0xD800) c = 0xE000;
    std::string text;
    unicode::Append(c, &text);
    size_t pos = 0;
    ASSERT_TRUE(unicode::IsSingleChar(text) && unicode::IsValid(text)) << static_cast<uint32_t>(c);
    ASSERT_EQ(unicode::Next(text, &pos), c);
    ASSERT_EQ(pos, text.size());
  }
}

TEST(ByteAlphabetTest, RoundTrip) {
  std::string all;
  for (int b = 0; b < 256; ++b) all.push_back(static_cast<char>(b));
  const std::string text = BytesToAlphabet(all);
  EXPECT_TRUE(unicode::IsValid(text));
  std::string back;
  EXPECT_TRUE(AlphabetToBytes(text, &back));
  EXPECT_EQ(back, all);
  EXPECT_EQ(BytesToAlphabet(" \n"), "\xC4\xA0\xC4\x8A");
  EXPECT_FALSE(AlphabetToBytes("a b", &back));  // the space is not of the alphabet
  EXPECT_EQ(back, all);
}

TEST(Utf8StreamTest, MaximalSubparts) {
  // Unicode 15, table 3-11: three ill-formed bytes, a character cut short, an ASCII one.
  const std::string bytes = "\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64";
  const std::string r = "\xEF\xBF\xBD";
  const std::string want = "a" + r + r + r + "b" + r + "c" + r + r + "d";
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    Utf8Stream stream;
    std::string out;
    stream.Append(bytes.substr(0, cut), &out);
    EXPECT_TRUE(unicode::IsValid(out));
    stream.Append(bytes.substr(cut), &out);
    stream.Flush(&out);
    EXPECT_EQ(out, want) << cut;
  }
}

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  std::vector<Segment> segments;
  EXPECT_TRUE((*regex)->Segments(text, &segments).ok());
  std::vector<std::string> out;
  for (const Segment& s : segments) {
    if (s.match) out.emplace_back(text.substr(s.begin, s.end - s.begin));
  }
  return out;
}

TEST(RegexTest, RubySyntax) {
  using V = std::vector<std::string>;
  EXPECT_EQ(Matches("a.b", "a\nb a-b"), V({"a-b"}));
  EXPECT_EQ(Matches("(?m)a.b", "a\nb"), V({"a\nb"}));
  EXPECT_EQ(Matches("^b$", "a\nb\nc"), V({"b"}));
  EXPECT_EQ(Matches(R"(\h+)", "xyzAf09g"), V({"Af09"}));
  EXPECT_EQ(Matches(R"([\h\-]+)", "z-a-z"), V({"-a-"}));
  EXPECT_EQ(Matches(R"(\u00e9)", "\xC3\xA9"), V({"\xC3\xA9"}));
  EXPECT_EQ(Matches(R"(\v)", "\n\x0B"), V({"\x0B"}));
  EXPECT_EQ(Matches("a{,2}b", "aaab"), V({"aab"}));
  EXPECT_EQ(Matches(R"(\s+(?!\S))", "a   b  "), V({"  ", "  "}));
  EXPECT_EQ(Matches(R"(\s)", "\xE1\xA0\x8E"), V());  // U+180E is no space
  EXPECT_EQ(Matches(R"([^\W\d]+)", "a1\xCC\x81-"), V({"a", "\xCC\x81"}));
  EXPECT_EQ(Matches(R"(\p{L}+)", "\xF0\x90\xB5\x90"),
            V({"\xF0\x90\xB5\x90"}));  // U+10D50, Unicode 16
}

TEST(RegexTest, RefusesWhatPcreWouldReadOtherwise) {
  for (const char* pattern :
       {"[a&&b]", "[[:alpha:]]", "(?~a)", R"(\K)", R"(\xE9)", "a{2}+", "(", "(*UTF)", R"(\C)",
        R"(\u12)", "\\", R"(\p)", R"(\p{Nonsense})", "(?s)a"}) {
    EXPECT_FALSE(Regex::Compile(pattern).ok()) << pattern;
  }
}

TEST(RegexTest, CatastrophicPatternIsAnError) {
  const auto regex = Regex::Compile("(a|aa)+[xy]");
  ASSERT_TRUE(regex.ok());
  std::vector<Segment> segments;
  EXPECT_EQ((*regex)->Segments(std::string(5000, 'a'), &segments).code(),
            absl::StatusCode::kResourceExhausted);
}

std::string Normalized(const Normalizer& normalizer, std::string text) {
  NormalizedText t{std::move(text)};
  EXPECT_TRUE(normalizer.Apply(&t).ok());
  return t.text;
}

TEST(NormalizerTest, StripBothSides) {
  EXPECT_EQ(Normalized(*MakeStrip(true, true), " \xE3\x80\x80 a b\n "), "a b");
  EXPECT_EQ(Normalized(*MakeStrip(false, true), " a "), " a");
  EXPECT_EQ(Normalized(*MakeStrip(true, false), " a "), "a ");
  EXPECT_EQ(Normalized(*MakeStrip(true, true), " \n "), "");
}

TEST(NormalizerTest, Forms) {
  using unicode::Form;
  const auto n = [](std::string_view text, Form form) { return unicode::Normalize(text, form); };
  EXPECT_EQ(n("e\xCC\x81", Form::kNfc), "\xC3\xA9");
  EXPECT_EQ(n("\xC3\xA9", Form::kNfd), "e\xCC\x81");
  EXPECT_EQ(n("\xEF\xAC\x81", Form::kNfc), "\xEF\xAC\x81");
  EXPECT_EQ(n("\xEF\xAC\x81", Form::kNfkc), "fi");
  EXPECT_EQ(n("\xEA\xB0\x81", Form::kNfd), "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8");
  EXPECT_EQ(n("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", Form::kNfc), "\xEA\xB0\x81");
  // Marks are put in canonical order: cedilla (202) before acute (230).
  EXPECT_EQ(n("c\xCC\x81\xCC\xA7", Form::kNfd), "c\xCC\xA7\xCC\x81");
}

TEST(AddedTokensTest, LongestFirstAndWhiteSpace) {
  Vocabulary vocabulary;
  for (const char* t : {"a", "b", "c"})
    vocabulary.Insert(t, static_cast<int32_t>(vocabulary.size()));
  std::vector<AddedToken> tokens(3);
  tokens[0].content = "<x>";
  tokens[0].rstrip = true;
  tokens[1].content = "<x>y";
  tokens[2].content = "b";  // a token of the model: keeps its id
  const auto added = AddedTokens::Create(tokens, vocabulary, nullptr, "test");
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_EQ(added->IdOf("<x>"), 3);
  EXPECT_EQ(added->IdOf("<x>y"), 4);
  EXPECT_EQ(added->IdOf("b"), 1);
  std::vector<int32_t> ids;
  std::string texts;
  for (const auto& m : added->Find("q<x>y<x>  bz", false)) {
    ids.push_back(m.id);
    texts += std::string(m.text) + "|";
  }
  EXPECT_EQ(ids, std::vector<int32_t>({-1, 4, 3, 1, -1}));
  EXPECT_EQ(texts, "q|<x>y|<x>  |b|z|");
}

TEST(SplitTest, Behaviors) {
  const auto pieces = [](SplitBehavior behavior) {
    PieceList list;
    list.pieces.push_back({"the-final--countdown", -1, true});
    EXPECT_TRUE(MakeSplit("-", nullptr, behavior, false)->Apply(&list).ok());
    std::string out;
    for (const Piece& p : list.pieces) out += std::string(p.text) + "|";
    return out;
  };
  EXPECT_EQ(pieces(SplitBehavior::kRemoved), "the|final|countdown|");
  EXPECT_EQ(pieces(SplitBehavior::kIsolated), "the|-|final|-|-|countdown|");
  EXPECT_EQ(pieces(SplitBehavior::kMergedWithPrevious), "the-|final-|-|countdown|");
  EXPECT_EQ(pieces(SplitBehavior::kMergedWithNext), "the|-final|-|-countdown|");
  EXPECT_EQ(pieces(SplitBehavior::kContiguous), "the|-|final|--|countdown|");
}

TEST(MergeTableTest, FindsWhatWasInserted) {
  MergeTable table(1000);
  for (int32_t i = 0; i < 1000; ++i)
    table.Insert(i, i * 7 % 1000, {static_cast<uint32_t>(i), i + 5});
  for (int32_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(table.Find(i, i * 7 % 1000).rank, static_cast<uint32_t>(i));
    EXPECT_EQ(table.Find(i, i * 7 % 1000).id, i + 5);
    EXPECT_EQ(table.Find(i, i * 7 % 1000 + 1).rank, MergeTable::kNoRank);
  }
  table.Insert(3, 21, {9, 9});
  EXPECT_EQ(table.Find(3, 21).rank, 9u);
}

}  // namespace
}  // namespace hgrn2
