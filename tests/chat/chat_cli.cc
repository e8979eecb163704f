// Renders chat templates for differential_test.py: a JSON object {"template", "variables"} a line
// in,
// {"text"} or {"error"} a line out. strftime_now's clock stands at "now", if given.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/string_view.h"
#include "engine/chat/chat_template.h"

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto job = nlohmann::ordered_json::parse(line);
    hgrn2::ChatTemplateOptions options;
    const int64_t now = job.value("now", int64_t{0});
    options.now = [now] { return now; };
    const auto compiled =
        hgrn2::ChatTemplate::Compile(job["template"].get<std::string>(), "template", options);
    const absl::StatusOr<std::string> text =
        compiled.ok() ? (*compiled)->Render(job["variables"]) : compiled.status();
    nlohmann::ordered_json answer;
    if (text.ok()) {
      answer["text"] = *text;
    } else {
      answer["error"] = std::string(hgrn2::ToStd(text.status().message()));
    }
    std::cout << answer.dump() << std::endl;
  }
}
