// What Jinja2 made of every template of cases.py, recorded by differential_test.py --record.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/chat/chat_template.h"

namespace hgrn2 {
namespace {

using Json = nlohmann::ordered_json;

TEST(ChatVectors, SameTextAsJinja2) {
  setenv("TZ", "UTC", 1);
  std::ifstream in(std::string(HGRN2_SOURCE_DIR) + "/tests/chat/vectors.json");
  ASSERT_TRUE(in.good());
  const Json document = Json::parse(in);
  ChatTemplateOptions options;
  options.now = [now = document["now"].get<int64_t>()] { return now; };
  int texts = 0;
  for (const Json& vector : document["vectors"]) {
    const auto source = document["templates"][vector[1].get<size_t>()].get<std::string>();
    const Json& variables = document["variables"][vector[2].get<size_t>()];
    const auto compiled = ChatTemplate::Compile(source, "template", options);
    const absl::StatusOr<std::string> text =
        compiled.ok() ? (*compiled)->Render(variables) : compiled.status();
    SCOPED_TRACE(vector[0].get<std::string>() + ": " + source.substr(0, 200));
    if (vector[3].is_null()) {
      EXPECT_FALSE(text.ok()) << *text;
      continue;
    }
    ++texts;
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, vector[3].get<std::string>());
  }
  EXPECT_GE(texts, 800);
}

}  // namespace
}  // namespace hgrn2
