#include "server/flags.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "base/status.h"
#include "server/version.h"

namespace hgrn2 {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

const OptionSpec* FindOption(std::string_view name) {
  for (const OptionSpec& spec : OptionTable()) {
    if (spec.name == name) return &spec;
  }
  return nullptr;
}

// Adds where a value came from to an option's error, keeping the field.
absl::Status WithSource(const absl::Status& status, std::string_view source) {
  if (status.ok()) return status;
  const std::string field = FieldOf(status);
  const std::string message(status.message());
  // InvalidArgument puts "field: " in front again.
  return InvalidArgument(field, "{} (from {})", message.substr(field.size() + 2), source);
}

struct CommandLine {
  std::string message;  // of --help or --version
  std::map<std::string, std::string> values;
  std::optional<std::string> config;
};

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments) {
  const ServerOptions defaults;
  CommandLine line;
  CLI::App app(
      "HGRN2 model server. Every flag is also an environment variable (--max-num-seqs: "
      "HGRN2_MAX_NUM_SEQS) and a key of the --config file; a flag wins over the "
      "environment, the environment over the file.",
      "hgrn2-server");
  app.set_version_flag("--version", std::string("hgrn2-server ") + ServerVersion());
  for (const OptionSpec& spec : OptionTable()) {
    const std::string value = spec.get(defaults);
    app.add_option_function<std::string>(
           "--" + spec.name,
           [&line, name = spec.name](const std::string& text) { line.values[name] = text; },
           spec.help)
        ->type_name(spec.limit + (value.empty() ? "" : " (default " + value + ")"));
  }
  app.add_option_function<std::string>(
         "--config", [&line](const std::string& text) { line.config = text; },
         "YAML or JSON file with the same names as keys.")
      ->type_name("a file");
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);  // CLI11 takes arguments from the back
  } catch (const CLI::CallForHelp&) {
    line.message = app.help();
  } catch (const CLI::CallForVersion&) {
    line.message = std::string("hgrn2-server ") + ServerVersion() + "\n";
  } catch (const CLI::ParseError& error) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "command line: {} (see --help)",
                      error.what());
  }
  return line;
}

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return InvalidArgument("config", "cannot open file '{}'", path);
  std::string text(kMaxConfigBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof())) {
    return InvalidArgument("config", "cannot read file '{}'", path);
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxConfigBytes) {
    return InvalidArgument("config", "file '{}' is larger than {} bytes", path, kMaxConfigBytes);
  }
  return text;
}

absl::Status ApplyFile(const std::string& path, ServerOptions* options) {
  ASSIGN_OR_RETURN(const std::string text, ReadConfigFile(path));
  ASSIGN_OR_RETURN(const std::vector<ConfigEntry> entries, ParseConfigText(text, path));
  for (const ConfigEntry& entry : entries) {
    const OptionSpec* const spec = FindOption(entry.key);
    if (spec == nullptr) {
      return InvalidArgument("config", "file '{}' has the unknown key '{}'", path, entry.key);
    }
    const std::string source = fmt::format("file '{}'", path);
    if (entry.quoted && spec->type != OptionSpec::Type::kString) {
      return InvalidArgument(spec->name, "must be {}, got the string \"{}\" (from {})", spec->limit,
                             entry.value, source);
    }
    RETURN_IF_ERROR(WithSource(spec->set(entry.value, options), source));
  }
  return absl::OkStatus();
}

// Variables of ours; others that begin with HGRN2_ are not errors: Kubernetes itself sets
// HGRN2_SERVICE_HOST and the like for a Service named hgrn2.
absl::Status ApplyEnvironment(const std::map<std::string, std::string>& variables,
                              ServerOptions* options, std::vector<std::string>* warnings) {
  std::set<std::string> known = {"HGRN2_CONFIG"};
  for (const OptionSpec& spec : OptionTable()) {
    const std::string name = spec.EnvironmentName();
    known.insert(name);
    const auto found = variables.find(name);
    if (found == variables.end()) continue;
    absl::Status status =
        WithSource(spec.set(found->second, options), "environment variable " + name);
    if (!status.ok() && found->second.starts_with("tcp://")) {
      return InvalidArgument(
          spec.name,
          "environment variable {} is '{}', which is a Kubernetes service link and not a setting; "
          "set enableServiceLinks: false in the pod",
          name, found->second);
    }
    RETURN_IF_ERROR(status);
  }
  for (const auto& [name, value] : variables) {
    if (!known.contains(name) && name.find("_SERVICE_") == std::string::npos &&
        name.find("_PORT") == std::string::npos) {
      warnings->push_back(
          fmt::format("environment variable {} is not one of the server's and is ignored", name));
    }
  }
  return absl::OkStatus();
}

// OpenTelemetry's own variable is often set for every pod of a cluster: one that we cannot use is
// no error.
void ApplyOpenTelemetry(const std::vector<std::string>& environment, ServerOptions* options,
                        std::vector<std::string>* warnings) {
  constexpr std::string_view kVariable = "OTEL_EXPORTER_OTLP_ENDPOINT=";
  if (!options->otlp_endpoint.empty()) return;
  for (const std::string& entry : environment) {
    if (!entry.starts_with(kVariable) || entry.size() == kVariable.size()) continue;
    const OptionSpec* const spec = FindOption("otlp-endpoint");
    const absl::Status status = WithSource(spec->set(entry.substr(kVariable.size()), options),
                                           "environment variable OTEL_EXPORTER_OTLP_ENDPOINT");
    if (!status.ok()) {
      warnings->push_back(fmt::format("no traces: {}", std::string(status.message())));
    }
  }
}

absl::Status CheckTogether(const ServerOptions& options) {
  if (options.model.empty()) {
    return InvalidArgument("model", "is required: --model DIRECTORY (or HGRN2_MODEL)");
  }
  if (options.grpc_port != 0 && options.grpc_port == options.http_port) {
    return InvalidArgument("http-port", "must differ from grpc-port, both are {}",
                           options.http_port);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ConfigEntry>> ParseConfigText(const std::string& text,
                                                         std::string_view file) {
  std::vector<ConfigEntry> entries;
  std::set<std::string> seen;
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return entries;  // an empty file
    if (!root.IsMap()) return InvalidArgument("config", "file '{}' must hold a map", file);
    for (const auto& pair : root) {
      if (!pair.first.IsScalar()) {
        return InvalidArgument("config", "file '{}' has a key that is not a name", file);
      }
      const std::string key = pair.first.Scalar();
      if (!pair.second.IsScalar()) {
        return InvalidArgument(key,
                               "must be a single value, not null, a list or a map (from file "
                               "'{}')",
                               file);
      }
      if (!seen.insert(key).second) {
        return InvalidArgument(key, "is set twice in file '{}'", file);
      }
      // yaml-cpp gives quoted scalars the tag "!".
      entries.push_back({key, pair.second.Scalar(), pair.second.Tag() == "!"});
    }
  } catch (const YAML::Exception& error) {
    return InvalidArgument("config", "file '{}' is neither YAML nor JSON: {}", file, error.what());
  }
  return entries;
}

absl::StatusOr<ParsedFlags> ParseFlags(const std::vector<std::string>& arguments,
                                       const std::vector<std::string>& environment) {
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments));
  ParsedFlags parsed;
  if (!line.message.empty()) {
    parsed.message = line.message;
    return parsed;
  }
  std::map<std::string, std::string> variables;
  for (const std::string& entry : environment) {
    const size_t equals = entry.find('=');
    if (entry.starts_with("HGRN2_") && equals != std::string::npos) {
      variables[entry.substr(0, equals)] = entry.substr(equals + 1);
    }
  }
  std::optional<std::string> config = line.config;
  if (!config && variables.contains("HGRN2_CONFIG")) config = variables["HGRN2_CONFIG"];
  if (config) RETURN_IF_ERROR(ApplyFile(*config, &parsed.options));
  RETURN_IF_ERROR(ApplyEnvironment(variables, &parsed.options, &parsed.warnings));
  for (const OptionSpec& spec : OptionTable()) {
    const auto found = line.values.find(spec.name);
    if (found == line.values.end()) continue;
    RETURN_IF_ERROR(WithSource(spec.set(found->second, &parsed.options), "flag --" + spec.name));
  }
  ApplyOpenTelemetry(environment, &parsed.options, &parsed.warnings);
  RETURN_IF_ERROR(CheckTogether(parsed.options));
  return parsed;
}

}  // namespace hgrn2
