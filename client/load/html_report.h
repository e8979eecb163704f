// One self-contained HTML file with charts of one or more runs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace hgrn2::client {

// `report` is {"runs": [as made by ToJson(RunResult), ...], "find_max": optional}.
std::string HtmlReport(const nlohmann::ordered_json& report);

// The runs of a file written by `load --json`: one run, or the "runs" of a sweep. Errors name the
// file and what it lacks.
absl::StatusOr<nlohmann::ordered_json> ReadRuns(const std::string& path);

}  // namespace hgrn2::client
