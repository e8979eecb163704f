#include "engine/frontend/choice_text.h"

#include <gtest/gtest.h>

#include <random>

namespace hgrn2 {
namespace {

// What the matcher must show in all, decided on the whole text at once.
std::pair<std::string, bool> Whole(const std::string& text, const std::vector<std::string>& stops,
                                   bool include) {
  size_t first = std::string::npos, length = 0;
  for (const std::string& stop : stops) {
    const size_t at = text.find(stop);
    if (at < first || (at == first && at != std::string::npos && stop.size() > length)) {
      first = at;
      length = stop.size();
    }
  }
  if (first == std::string::npos) return {text, false};
  return {text.substr(0, first + (include ? length : 0)), true};
}

TEST(StopStringMatcherTest, ShowsTextAsSoonAsItIsSafe) {
  StopStringMatcher matcher({"stop"}, false);
  EXPECT_EQ(matcher.Append("abc s"), "abc ");
  EXPECT_EQ(matcher.Append("to"), "");
  EXPECT_EQ(matcher.Append("x"), "stox");
  EXPECT_EQ(matcher.Append("ststop!"), "st");
  EXPECT_EQ(matcher.matched(), "stop");
  EXPECT_EQ(matcher.Append("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

// Token by token the text that is shown equals the decision on the whole text, wherever
// single-token pieces end. A piece may complete several stop strings; the earliest in the text
// wins.
TEST(StopStringMatcherTest, RandomTexts) {
  std::mt19937 random(1);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  int matches = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string text(pick(0, 30), 'a');
    for (char& c : text) c = static_cast<char>('a' + pick(0, 2));
    std::vector<std::string> stops(pick(0, 3));
    for (std::string& stop : stops) {
      stop.resize(pick(1, 5));
      for (char& c : stop) c = static_cast<char>('a' + pick(0, 2));
    }
    const bool include = pick(0, 1) == 1;
    StopStringMatcher matcher(stops, include);
    std::string shown;
    for (const char c : text) {
      shown += matcher.Append(std::string(1, c));
      if (matcher.matched().has_value()) break;
    }
    if (!matcher.matched().has_value()) shown += matcher.Flush();
    // One character at a time the first stop string to be complete wins, which may begin later than
    // a longer one; compare on the text up to there.
    size_t end = text.size();
    for (size_t n = 0; n <= text.size(); ++n) {
      if (Whole(text.substr(0, n), stops, include).second) {
        end = n;
        break;
      }
    }
    const auto [expected, matched] = Whole(text.substr(0, end), stops, include);
    ASSERT_EQ(shown, expected) << text;
    ASSERT_EQ(matcher.matched().has_value(), matched);
    matches += matched;
  }
  EXPECT_GT(matches, 1000);
}

}  // namespace
}  // namespace hgrn2
