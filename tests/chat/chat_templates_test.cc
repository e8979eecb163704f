// The templates of a checkpoint directory.
#include "engine/chat/chat_templates.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/status.h"

namespace hgrn2 {
namespace {

using Json = nlohmann::ordered_json;

class ChatTemplatesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/chatXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(
        std::filesystem::path(directory_ + "/" + name).parent_path());
    std::ofstream(directory_ + "/" + name) << text;
  }
  // The rendered text, or the error.
  std::string Render(ChatRenderRequest request = {}, const std::string& override_path = "") {
    const auto templates = ChatTemplates::Load(directory_, override_path);
    if (!templates.ok()) return std::string(ToStd(templates.status().message()));
    if (request.messages == nullptr) request.messages = &messages_;
    const auto text = (*templates)->Render(request);
    if (!text.ok()) field_ = FieldOf(text.status());
    return text.ok() ? *text : std::string(ToStd(text.status().message()));
  }

  std::string directory_;
  std::string field_;
  Json messages_ =
      Json::parse(R"([{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}])");
};

TEST_F(ChatTemplatesTest, PlainTemplateForBaseModels) {
  const auto templates = ChatTemplates::Load(directory_);
  ASSERT_TRUE(templates.ok()) << templates.status();
  EXPECT_TRUE((*templates)->is_plain());
  EXPECT_TRUE((*templates)->add_special_tokens());
  EXPECT_EQ((*templates)->stop(), std::vector<std::string>{"\nUser:"});
  EXPECT_EQ(Render(), "S\n\nUser: Hi\nAssistant:");
  messages_.push_back(Json{{"role", "assistant"}, {"content", "Hello"}});
  EXPECT_EQ(Render({.add_generation_prompt = false}), "S\n\nUser: Hi\nAssistant: Hello\n");
  EXPECT_EQ(Render({.add_generation_prompt = false, .continue_final_message = true}),
            "S\n\nUser: Hi\nAssistant: Hello");
  messages_.push_back(Json{{"role", "narrator"}, {"content", ""}});
  EXPECT_EQ(Render(), "messages: unknown role narrator");
}

TEST_F(ChatTemplatesTest, FromTokenizerConfigWithSpecialTokens) {
  Write("tokenizer_config.json",
        R"({"chat_template": "{{ bos_token }}{{ messages[1].content }}{{ eos_token }}",
      "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}})");
  EXPECT_EQ(Render(), "<s>Hi</s>");
  const auto templates = ChatTemplates::Load(directory_);
  EXPECT_FALSE((*templates)->is_plain());
  EXPECT_FALSE((*templates)->add_special_tokens());
  EXPECT_TRUE((*templates)->stop().empty());
}

TEST_F(ChatTemplatesTest, NamedTemplates) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "D"},
      {"name": "tool_use", "template": "T{{ tools|length }}"}, {"name": "rag", "template": "R"}]})");
  EXPECT_EQ(Render(), "D");
  const Json tools = Json::array({Json::object()});
  EXPECT_EQ(Render({.tools = &tools}), "T1");
  EXPECT_EQ(Render({.template_name = "rag"}), "R");
  EXPECT_EQ(
      Render({.template_name = "x"}),
      "chat_template: there is no template of that name; the model has: default, rag, tool_use");
  EXPECT_EQ(field_, "chat_template");
}

TEST_F(ChatTemplatesTest, OrderOfFiles) {
  Write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(Render(), "config");
  Write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(Render(), "json");
  Write("chat_template.jinja", "jinja\n");
  EXPECT_EQ(Render(), "jinja");
  Write("additional_chat_templates/rag.jinja", "folder");
  EXPECT_EQ(Render({.template_name = "rag"}), "folder");
  Write("other", "override");
  EXPECT_EQ(Render({}, directory_ + "/other"), "override");
  EXPECT_NE(Render({}, directory_ + "/missing").find("missing"), std::string::npos);
}

TEST_F(ChatTemplatesTest, ErrorsNameFileAndLine) {
  Write("chat_template.jinja", "a\n{% include 'x' %}");
  EXPECT_EQ(Render(),
            directory_ + "/chat_template.jinja, line 2: the tag {% include %} is not supported");
  Write("chat_template.jinja", "a");
  Write("tokenizer_config.json", "{");
  EXPECT_NE(Render().find("tokenizer_config.json"), std::string::npos);
  Write("tokenizer_config.json", R"({"chat_template": 5})");
  std::filesystem::remove(directory_ + "/chat_template.jinja");
  EXPECT_NE(Render().find("chat_template"), std::string::npos);
}

TEST_F(ChatTemplatesTest, KwargsAreVariables) {
  Write("chat_template.jinja",
        "{{ enable_thinking }}{{ tools is none }}{{ add_generation_prompt }}");
  const Json kwargs = {{"enable_thinking", false}};
  EXPECT_EQ(Render({.kwargs = &kwargs}), "FalseTrueTrue");
  const Json bad = {{"messages", 1}};
  EXPECT_EQ(Render({.kwargs = &bad}), "chat_template_kwargs: must not set \"messages\"");
  EXPECT_EQ(field_, "chat_template_kwargs");
}

TEST_F(ChatTemplatesTest, ContentsBecomeText) {
  Write("chat_template.jinja", "{% for m in messages %}[{{ m.content }}]{% endfor %}");
  messages_ = Json::parse(
      R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null}, {"role": "user"}])");
  EXPECT_EQ(Render(), "[a\nb][][]");
  for (const char* bad :
       {R"([])", R"({})", R"([1])", R"([{"content": "x"}])", R"([{"role": "user", "content": 5}])",
        R"([{"role": "user", "content": [{"type": "image_url"}]}])"}) {
    messages_ = Json::parse(bad);
    field_.clear();
    Render();
    EXPECT_EQ(field_, "messages") << bad;
  }
}

TEST_F(ChatTemplatesTest, ContinuesTheFinalMessage) {
  Write("chat_template.jinja",
        "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</>{% endfor %}");
  messages_.push_back(Json{{"role", "assistant"}, {"content", "Once upon "}});
  const ChatRenderRequest go_on = {.add_generation_prompt = false, .continue_final_message = true};
  EXPECT_EQ(Render(go_on), "<system>S</><user>Hi</><assistant>Once upon");
  ChatRenderRequest both = go_on;
  both.add_generation_prompt = true;
  EXPECT_EQ(Render(both), "continue_final_message: excludes add_generation_prompt");
  messages_.back()["content"] = " ";
  Render(go_on);
  EXPECT_EQ(field_, "continue_final_message");
}

}  // namespace
}  // namespace hgrn2
