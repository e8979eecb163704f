// What is refused, how, and where it says it is.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/string_view.h"
#include "engine/chat/chat_template.h"

namespace hgrn2 {
namespace {

using Json = nlohmann::ordered_json;

std::string CompileError(const std::string& source) {
  const auto compiled = ChatTemplate::Compile(source, "chat.jinja");
  return compiled.ok() ? "" : std::string(ToStd(compiled.status().message()));
}

TEST(ChatLanguage, WhatIsNotSupportedIsNamedWithItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{% include 'x' %}", "chat.jinja, line 2: the tag {% include %} is not supported"},
      {"{% extends 'x' %}", "chat.jinja, line 1: the tag {% extends %} is not supported"},
      {"{% call m() %}{% endcall %}", "chat.jinja, line 1: the tag {% call %} is not supported"},
      {"{% block b %}{% endblock %}", "chat.jinja, line 1: the tag {% block %} is not supported"},
      {"\n\n{{ x | groupby('a') }}", "chat.jinja, line 3: the filter 'groupby' is not supported"},
      {"{{ x | map('xmlattr') }}", "chat.jinja, line 1: the filter 'xmlattr' is not supported"},
      {"{{ x is escaped }}", "chat.jinja, line 1: the test 'escaped' is not supported"},
      {"{{ x | select('escaped') }}", "chat.jinja, line 1: the test 'escaped' is not supported"},
      {"{{ cycler(1) }}", "chat.jinja, line 1: 'cycler' is not supported"},
      {"{{ get_tools() }}", "chat.jinja, line 1: the function get_tools() is not supported"},
      {"{{ x | safe ~ 'a' }}",
       "chat.jinja, line 1: the filter 'safe' is supported only at the end of {{ }}"},
      {"{% for x in y recursive %}{% endfor %}",
       "chat.jinja, line 1: recursive loops are not supported"},
      {"{{ m(*args) }}", "chat.jinja, line 1: arguments with * and ** are not supported"},
      {"{{ 0x10 }}", "chat.jinja, line 1: numbers in another base than ten are not supported"},
  };
  for (const auto& [source, message] : cases) EXPECT_EQ(CompileError(source), message) << source;
}

TEST(ChatLanguage, ChangingMethodsAreRefused) {
  for (const char* method : {"append(1)", "update({})", "pop()", "sort()", "encode()"}) {
    EXPECT_NE(CompileError(std::string("{{ x.") + method + " }}").find("is not supported"),
              std::string::npos)
        << method;
  }
}

TEST(ChatLanguage, SyntaxErrorsAreNamedWithTheirLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"{% if x %}\n\n",
       "chat.jinja, line 1: the block that begins here is not closed with {% endif %}"},
      {"x\n{{ a", "chat.jinja, line 2: {{ is not closed with }}"},
      {"{# a", "chat.jinja, line 1: a comment is not closed with #}"},
      {"{% raw %}", "chat.jinja, line 1: a raw block is not closed with {% endraw %}"},
      {"{{ (1 }}", "chat.jinja, line 1: unexpected '}', expected ')'"},
      {"{{ 1 2 }}", "chat.jinja, line 1: expected '}}', found '2'"},
      {"{{ }}", "chat.jinja, line 1: expected an expression, found '}}'"},
      {"{{ 'a }}", "chat.jinja, line 1: a string is not closed"},
      {"{% endfor %}", "chat.jinja, line 1: unexpected {% endfor %}"},
      {"{% break %}", "chat.jinja, line 1: {% break %} is not within a loop"},
      {"{{ a ? b }}", "chat.jinja, line 1: unexpected character '?'"},
      {"{% set true = 1 %}", "chat.jinja, line 1: cannot assign to true"},
      {"{{ 99999999999999999999 }}",
       "chat.jinja, line 1: the number 99999999999999999999 is too large"},
  };
  for (const auto& [source, message] : cases) EXPECT_EQ(CompileError(source), message) << source;
}

TEST(ChatLanguage, RunTimeErrorsAreNamedWithTheirLine) {
  const auto compiled =
      ChatTemplate::Compile("a\n{% if 1 %}\n{{ messages.x.y }}{% endif %}", "chat.jinja");
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  const auto text = (*compiled)->Render(Json{{"messages", Json::array()}});
  EXPECT_EQ(ToStd(text.status().message()),
            "chat.jinja, line 3: 'list object' has no attribute 'x'");
}

TEST(ChatLanguage, RaiseExceptionKeepsItsWords) {
  const auto compiled =
      ChatTemplate::Compile("{{ raise_exception('Roles must alternate') }}", "chat.jinja");
  ASSERT_TRUE(compiled.ok());
  const auto text = (*compiled)->Render(Json::object());
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ToStd(text.status().message()), "Roles must alternate");
}

// Found by fuzzing: half a character in an error's text.
TEST(ChatLanguage, ErrorsAreValidUtf8) {
  for (const char* source : {"{{ '%\u00e9s' % 1 }}", "{{ '%\u00e9' | format(1) }}",
                             "{{ 1 \u00e9 }}", "{{ missing.\u00e9 }}"}) {
    const auto compiled = ChatTemplate::Compile(source, "t");
    const auto text = compiled.ok() ? (*compiled)->Render(Json::object()) : compiled.status();
    ASSERT_FALSE(text.ok()) << source;
    EXPECT_NO_THROW(static_cast<void>(Json(std::string(ToStd(text.status().message()))).dump()))
        << source;
  }
}

// A template that asks whether a function is there may call it then.
TEST(ChatLanguage, UnknownFunctionsMayBeAskedFor) {
  EXPECT_EQ(CompileError("{% if now is defined %}{{ now() }}{% endif %}"), "");
}

TEST(ChatLanguage, TheTimeIsNow) {
  const auto compiled = ChatTemplate::Compile("{{ strftime_now('%Y') }}", "t");
  ASSERT_TRUE(compiled.ok());
  const auto text = (*compiled)->Render(Json::object());
  ASSERT_TRUE(text.ok());
  EXPECT_GE(std::stoi(*text), 2024);
}

}  // namespace
}  // namespace hgrn2
