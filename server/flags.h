// The server's flags. One table drives the command line, the environment (HGRN2_<NAME>), the keys
// of
// --config file.yaml|json, --help and docs/flags.md.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/options.h"

namespace hgrn2 {

struct OptionSpec {
  enum class Type { kString, kInteger, kNumber };
  std::string name;  // "max-num-seqs"
  Type type;
  std::string limit;  // "integer in [1, 65536]", "auto|cpu|..."; completes "must be ..."
  std::string help;
  // Parses `text` into the options; the error is INVALID_ARGUMENT of the option's name.
  std::function<absl::Status(const std::string& text, ServerOptions* options)> set;
  std::function<std::string(const ServerOptions& options)> get;

  std::string EnvironmentName() const;  // "HGRN2_MAX_NUM_SEQS"
};

// In the order of the documentation.
const std::vector<OptionSpec>& OptionTable();

struct ParsedFlags {
  // What to print and exit 0 with, if not empty: --help or --version was given.
  std::string message;
  ServerOptions options;
  // Worth a log line, such as an environment variable that looks like a misspelt one of ours.
  std::vector<std::string> warnings;
};

// `environment` is in the form of ::environ ("NAME=value"). Precedence: flag, environment, file,
// default. INVALID_ARGUMENT names the option, its limit and where the value came from.
absl::StatusOr<ParsedFlags> ParseFlags(const std::vector<std::string>& arguments,
                                       const std::vector<std::string>& environment);

// One key and value of a configuration file, the value as written.
struct ConfigEntry {
  std::string key;
  std::string value;
  bool quoted = false;
};
// YAML; JSON is a subset of it. `file` names the source in errors. The root must be a map from keys
// to scalars, without duplicates.
absl::StatusOr<std::vector<ConfigEntry>> ParseConfigText(const std::string& text,
                                                         std::string_view file);

// The table of docs/flags.md.
std::string FlagsMarkdown();

}  // namespace hgrn2
