// Templates and variables that try to take more than they may.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/string_view.h"
#include "engine/chat/chat_template.h"

namespace hgrn2 {
namespace {

using Json = nlohmann::ordered_json;

std::string Repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

// The error of rendering, or "" if there is none.
std::string ErrorOf(const std::string& source, const Json& variables = Json::object()) {
  const auto compiled = ChatTemplate::Compile(source, "t");
  const absl::StatusOr<std::string> text =
      compiled.ok() ? (*compiled)->Render(variables) : compiled.status();
  return text.ok() ? "" : std::string(ToStd(text.status().message()));
}

void ExpectError(const std::string& source, const std::string& part) {
  EXPECT_NE(ErrorOf(source).find(part), std::string::npos) << source.substr(0, 200) << "\n"
                                                           << ErrorOf(source);
}

TEST(ChatLimits, LoopsEnd) {
  ExpectError(
      "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a %}{% endfor %}{% endfor "
      "%}",
      "max_steps");
  ExpectError("{% for a in range(100001) %}{% endfor %}", "100000");
}

TEST(ChatLimits, OutputIsBounded) {
  ExpectError("{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "max_output_bytes");
}

TEST(ChatLimits, ValuesAreBounded) {
  ExpectError("{{ 'x' * 1000000000000 }}", "max_memory_bytes");
  ExpectError("{{ [1] * 1000000000000 }}", "max_memory_bytes");
  ExpectError("{{ ''.ljust(100000000000) }}", "max_memory_bytes");
  ExpectError("{{ ('a' * 10000)|replace('a', 'b' * 1000000) }}", "max_memory_bytes");
  ExpectError("{{ ('a' * 10000)|join('b' * 1000000) }}", "max_memory_bytes");
  ExpectError("{{ 'a\\n'|indent(100000000000) }}", "max_memory_bytes");
  ExpectError("{{ ('a' * 40000000)|list }}", "max_memory_bytes");
  ExpectError("{{ '%099999999d' % 1 }}", "9999");
  ExpectError(
      "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}"
      "{% endfor %}",
      "max_memory_bytes");
  ExpectError(
      "{% set ns = namespace(x=['ab']) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}"
      "{% endfor %}",
      "max_memory_bytes");
}

// Text that grows by copying is time as well as memory.
TEST(ChatLimits, CopyingIsTime) {
  ExpectError(
      "{% set big = 'x' * 30000000 %}{% for i in range(99999) %}{% set y = big ~ i %}{% endfor %}",
      "max_steps");
  ExpectError(
      "{% set big = 'x' * 30000000 %}{% for i in range(99999) %}{% if 'y' in big %}{% endif %}"
      "{% endfor %}",
      "max_steps");
}

TEST(ChatLimits, RecursionIsBounded) {
  ExpectError("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "max_depth");
  ExpectError("{{ " + Repeat("(", 5000) + "1" + Repeat(")", 5000) + " }}", "max_depth");
  ExpectError("{{ " + Repeat("not ", 5000) + "1 }}", "max_depth");
  ExpectError("{{ " + Repeat("-", 5000) + "1 }}", "max_depth");
  ExpectError("{{ " + Repeat("[", 5000) + Repeat("]", 5000) + " }}", "max_depth");
  ExpectError("{{ 1" + Repeat(" + 1", 100000) + " }}", "max_depth");
  ExpectError("{{ a" + Repeat(".a", 100000) + " }}", "max_depth");
  ExpectError("{{ a" + Repeat("|list", 100000) + " }}", "max_depth");
  ExpectError(Repeat("{% if 1 %}", 5000) + Repeat("{% endif %}", 5000), "max_depth");
  EXPECT_EQ(ErrorOf("{{ 1" + Repeat(" ~ 1", 10000) + " }}"), "");
}

// Lists within lists within lists: their destructors recurse.
TEST(ChatLimits, ValuesNestBounded) {
  ExpectError(
      "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}"
      "{% endfor %}",
      "nested deeper");
  ExpectError(
      "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = {'a': ns.x} %}"
      "{% endfor %}",
      "nested deeper");
  ExpectError(
      "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = [ns.x].index %}"
      "{% endfor %}",
      "nested deeper");
  EXPECT_EQ(ErrorOf("{% set ns = namespace(x=1) %}{% for i in range(99999) %}"
                    "{% set ns.x = namespace(x=ns.x) %}{% endfor %}"),
            "");
  Json deep = 1;
  for (int i = 0; i < 1000; ++i) {
    Json outer = Json::array();
    outer.push_back(std::move(deep));
    deep = std::move(outer);
  }
  EXPECT_NE(ErrorOf("x", Json{{"a", deep}}).find("nested deeper"), std::string::npos);
}

// Nothing is left behind (with AddressSanitizer's leak check) by values that refer to each other.
TEST(ChatLimits, CyclesAreBroken) {
  EXPECT_EQ(ErrorOf("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.list = [ns] %}"), "");
  EXPECT_EQ(ErrorOf("{% macro m() %}{{ m is defined }}{% endmacro %}{{ m() }}"), "");
  EXPECT_EQ(
      ErrorOf("{% set ns = namespace() %}{% for i in [1] %}{% macro m() %}{{ i }}{% endmacro %}"
              "{% set ns.m = m %}{% set ns.l = loop %}{% endfor %}{{ ns.m() }}"),
      "");
  ExpectError("{% for i in [1] %}{{ loop.changed(loop.changed) }}{% endfor %}", "loop.changed()");
}

TEST(ChatLimits, SourceIsBounded) {
  ExpectError(std::string(2 << 20, 'x'), "the limit is");
  ExpectError("\xff", "UTF-8");
  EXPECT_NE(ErrorOf("x", Json{{"a", "\xc3"}}).find("UTF-8"), std::string::npos);
}

}  // namespace
}  // namespace hgrn2
