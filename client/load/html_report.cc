#include "client/load/html_report.h"

#include <fmt/format.h>

#include <string_view>

#include "client/text_io.h"

namespace hgrn2::client {

extern const std::string_view kReportTemplate;  // report_template.html, embedded by the build

using Json = nlohmann::ordered_json;

std::string HtmlReport(const Json& report) {
  std::string data = report.dump(-1, ' ', false, Json::error_handler_t::replace);
  // Text from a server must not be able to close the script element it is embedded in.
  for (size_t at = 0; (at = data.find('<', at)) != std::string::npos; at += 6) {
    data.replace(at, 1, "\\u003c");
  }
  constexpr std::string_view kMark = "@DATA@";
  const size_t mark = kReportTemplate.find(kMark);
  std::string html(kReportTemplate.substr(0, mark));
  html += data;
  html += kReportTemplate.substr(mark + kMark.size());
  return html;
}

absl::StatusOr<Json> ReadRuns(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  const Json json = Json::parse(*text, nullptr, false);
  Json runs = Json::array();
  if (json.is_object() && json.contains("runs") && json["runs"].is_array()) {
    runs = json["runs"];
  } else {
    runs.push_back(json);
  }
  for (const Json& run : runs) {
    if (!run.is_object() || !run.contains("hgrn2") || !run["hgrn2"].contains("series")) {
      return absl::InvalidArgumentError(path + ": not a result of 'load --json'");
    }
  }
  return runs;
}

}  // namespace hgrn2::client
