// "name:1:2.5" and "7": the small notation of the load tool's flags.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2::client {

struct Spec {
  std::string name;  // empty if the text begins with a number
  std::vector<double> numbers;
};

// Numbers may be separated by ':' or ','; "inf" is a number.
absl::StatusOr<Spec> ParseSpec(const std::string& text);

// A whole, finite or infinite, number.
absl::StatusOr<double> ParseNumber(const std::string& text);

// "ttft:200,itl:20" -> {{"ttft", 200}, {"itl", 20}}; entries separated by ',' or ' '.
absl::StatusOr<std::vector<std::pair<std::string, double>>> ParsePairs(const std::string& text);

}  // namespace hgrn2::client
