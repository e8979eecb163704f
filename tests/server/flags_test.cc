#include "server/flags.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "base/status.h"
#include "server/version.h"

namespace hgrn2 {
namespace {

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class FlagsTest : public ::testing::Test {
 protected:
  // Written under the test's temporary directory.
  std::string File(const std::string& name, const std::string& text) {
    const auto path = std::filesystem::path(::testing::TempDir()) / ("flags_test_" + name);
    std::ofstream(path) << text;
    return path.string();
  }
  absl::StatusOr<ParsedFlags> Parse(std::vector<std::string> arguments,
                                    std::vector<std::string> environment = {}) {
    return ParseFlags(arguments, environment);
  }
  // Parses with a model and expects success.
  ServerOptions Options(std::vector<std::string> arguments,
                        std::vector<std::string> environment = {}) {
    arguments.insert(arguments.begin(), {"--model", "m"});
    auto parsed = Parse(arguments, environment);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return parsed.ok() ? parsed->options : ServerOptions{};
  }
  // Parses with a model and expects INVALID_ARGUMENT about `field`.
  std::string Error(const std::string& field, std::vector<std::string> arguments,
                    std::vector<std::string> environment = {}) {
    arguments.insert(arguments.begin(), {"--model", "m"});
    auto parsed = Parse(arguments, environment);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(FieldOf(parsed.status()), field) << parsed.status();
    return Message(parsed.status());
  }
};

TEST_F(FlagsTest, DefaultsAreTheOptionsOwn) {
  const ServerOptions options = Options({});
  EXPECT_EQ(options.model, "m");
  EXPECT_EQ(options.grpc_port, 50051);
  EXPECT_EQ(options.http_port, 8000);
  EXPECT_EQ(options.devices, std::vector<DeviceSpec>{DeviceSpec{}});
  EXPECT_FALSE(options.seed.has_value());
  EXPECT_FALSE(options.dtype.has_value());
}

TEST_F(FlagsTest, EveryDefaultIsWithinItsOwnLimit) {
  const ServerOptions defaults;
  for (const OptionSpec& spec : OptionTable()) {
    const std::string text = spec.get(defaults);
    if (text.empty()) continue;
    ServerOptions options;
    EXPECT_TRUE(spec.set(text, &options).ok()) << spec.name << "=" << text;
    EXPECT_EQ(spec.get(options), text) << spec.name;
  }
}

TEST_F(FlagsTest, EveryOptionIsReachableByFlagEnvironmentAndFile) {
  for (const OptionSpec& spec : OptionTable()) {
    // A value that differs from the default.
    std::string value;
    for (const char* candidate : {"7", "0.5", "1024", "65536", "70000", "fp8", "cpu", "dummy",
                                  "float32", "debug", "json", "http://x:1", "x"}) {
      ServerOptions options;
      if (spec.set(candidate, &options).ok() && spec.get(options) != spec.get(ServerOptions{})) {
        value = candidate;
        break;
      }
    }
    ASSERT_FALSE(value.empty()) << spec.name;
    const std::string model = spec.name == "model" ? "" : "m";
    const auto check = [&](std::vector<std::string> arguments, std::vector<std::string> env) {
      if (!model.empty()) arguments.insert(arguments.begin(), {"--model", model});
      auto parsed = Parse(arguments, env);
      ASSERT_TRUE(parsed.ok()) << spec.name << ": " << parsed.status();
      EXPECT_EQ(spec.get(parsed->options), value == "cpu" ? "cpu" : value) << spec.name;
    };
    check({"--" + spec.name, value}, {});
    check({"--" + spec.name + "=" + value}, {});
    check({}, {spec.EnvironmentName() + "=" + value});
    check({"--config", File("one.yaml", spec.name + ": " + value + "\n")}, {});
  }
}

TEST_F(FlagsTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file = File("precedence.yaml", "max-num-seqs: 2\ngrpc-port: 1002\nhost: a\n");
  const ServerOptions options =
      Options({"--config", file, "--max-num-seqs", "4"},
              {"HGRN2_MAX_NUM_SEQS=3", "HGRN2_GRPC_PORT=1003", "OTHER=1"});
  EXPECT_EQ(options.max_num_seqs, 4);
  EXPECT_EQ(options.grpc_port, 1003);
  EXPECT_EQ(options.host, "a");
  EXPECT_EQ(options.http_port, 8000);
}

TEST_F(FlagsTest, OpenTelemetrysOwnVariableComesLastAndIsNoError) {
  const std::string standard = "OTEL_EXPORTER_OTLP_ENDPOINT=http://platform:4318";
  EXPECT_EQ(Options({}, {standard}).otlp_endpoint, "http://platform:4318");
  EXPECT_EQ(Options({}, {standard, "HGRN2_OTLP_ENDPOINT=http://ours:1"}).otlp_endpoint,
            "http://ours:1");
  EXPECT_EQ(Options({"--otlp-endpoint", "http://flag"}, {standard}).otlp_endpoint, "http://flag");
  EXPECT_EQ(Options({}, {"OTEL_EXPORTER_OTLP_ENDPOINT="}).otlp_endpoint, "");
  const auto parsed =
      Parse({"--model", "m"}, {"OTEL_EXPORTER_OTLP_ENDPOINT=https://platform:4317"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->options.otlp_endpoint, "");
  ASSERT_EQ(parsed->warnings.size(), 1u);
  EXPECT_NE(parsed->warnings[0].find("OTEL_EXPORTER_OTLP_ENDPOINT"), std::string::npos);
  Error("otlp-endpoint", {"--otlp-endpoint", "https://collector"});
}

TEST_F(FlagsTest, ConfigFileFromTheEnvironmentAndAsJson) {
  const std::string file = File("c.json", R"({"model": "from-json", "max-num-seqs": 5,
      "shutdown-timeout": 1.5, "device": "cpu,cuda:2"})");
  auto parsed = Parse({}, {"HGRN2_CONFIG=" + file});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->options.model, "from-json");
  EXPECT_EQ(parsed->options.max_num_seqs, 5);
  EXPECT_EQ(parsed->options.shutdown_timeout, 1.5);
  const std::vector<DeviceSpec> devices = {{DeviceSpec::Kind::kCpu, 0},
                                           {DeviceSpec::Kind::kCuda, 2}};
  EXPECT_EQ(parsed->options.devices, devices);
}

TEST_F(FlagsTest, ErrorsNameOptionLimitAndSource) {
  EXPECT_EQ(Error("grpc-port", {"--grpc-port", "70000"}),
            "grpc-port: must be an integer in [0, 65535], got '70000' (from flag --grpc-port)");
  EXPECT_EQ(Error("max-num-seqs", {}, {"HGRN2_MAX_NUM_SEQS=many"}),
            "max-num-seqs: must be an integer in [1, 65536], got 'many' (from environment variable "
            "HGRN2_MAX_NUM_SEQS)");
  const std::string file = File("bad.yaml", "dtype: float64\n");
  EXPECT_EQ(Error("dtype", {"--config", file}),
            "dtype: must be auto|float32|bfloat16, got 'float64' (from file '" + file + "')");
}

TEST_F(FlagsTest, NumbersMustBeWholeAndInRange) {
  for (const char* bad : {"", "1.5", "1e3", "0x10", " 1", "1 ", "-1", "99999999999999999999"}) {
    Error("max-num-queued-reqs", {}, {std::string("HGRN2_MAX_NUM_QUEUED_REQS=") + bad});
  }
  for (const char* bad : {"nan", "inf", "-0.1", "1s", "90000"}) {
    Error("shutdown-timeout", {std::string("--shutdown-timeout=") + bad});
  }
  EXPECT_EQ(Options({"--seed", "18446744073709551615"}).seed, 18446744073709551615ull);
  Error("seed", {"--seed=-1"});
  Error("seed", {"--seed", "18446744073709551616"});
}

TEST_F(FlagsTest, Devices) {
  using Kind = DeviceSpec::Kind;
  EXPECT_EQ(Options({"--device", "cuda"}).devices, (std::vector<DeviceSpec>{{Kind::kCuda, 0}}));
  EXPECT_EQ(Options({"--device", "cuda:1,cuda:0"}).devices,
            (std::vector<DeviceSpec>{{Kind::kCuda, 1}, {Kind::kCuda, 0}}));
  EXPECT_EQ(Options({"--device", "cpu,cpu"}).devices.size(), 2u);
  for (const char* bad : {"", ",", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:64", "cuda:0,cuda:0",
                          "cuda,cuda:0", "auto,cpu", "cpu,", "cpu cpu", "cudax"}) {
    Error("device", {}, {std::string("HGRN2_DEVICE=") + bad});
  }
}

TEST_F(FlagsTest, ConfigFileMistakes) {
  const auto error = [&](const std::string& field, const std::string& text) {
    return Error(field, {"--config", File("mistake.yaml", text)});
  };
  EXPECT_NE(error("config", "max-seqs: 1\n").find("unknown key 'max-seqs'"), std::string::npos);
  EXPECT_NE(error("config", "config: other.yaml\n").find("unknown key"), std::string::npos);
  error("max-num-seqs", "max-num-seqs: \"8\"\n");  // a string, not a number
  error("max-num-seqs", "max-num-seqs: 8\nmax-num-seqs: 9\n");
  error("max-num-seqs", "max-num-seqs: [8]\n");
  error("max-num-seqs", "max-num-seqs: {a: 8}\n");
  error("max-num-seqs", "max-num-seqs:\n");
  error("max-num-seqs", "max-num-seqs: true\n");
  error("config", "- 1\n- 2\n");
  error("config", "model: [unclosed\n");
  error("config", "? [a, b]\n: 1\n");
  Error("config", {"--config", "/nonexistent/file.yaml"});
  Error("config", {"--config", ::testing::TempDir()});  // a directory
  Options({"--config", File("empty.yaml", "")});
  Options({"--config", File("quoted.yaml", "host: \"127.0.0.1\"\n")});
}

TEST_F(FlagsTest, CommandLineMistakes) {
  EXPECT_FALSE(Parse({"--model", "m", "--no-such-flag", "1"}).ok());
  EXPECT_FALSE(Parse({"--model", "m", "stray"}).ok());
  EXPECT_FALSE(Parse({"--model"}).ok());
  EXPECT_FALSE(Parse({"--model", "a", "--model", "b"}).ok());
  EXPECT_EQ(FieldOf(Parse({}).status()), "model");
  Error("http-port", {"--http-port", "9000", "--grpc-port", "9000"});
  Options({"--http-port", "0", "--grpc-port", "0"});
}

TEST_F(FlagsTest, EnvironmentOfKubernetesServicesIsExplainedAndOthersAreReported) {
  EXPECT_NE(
      Error("http-port", {}, {"HGRN2_HTTP_PORT=tcp://10.0.0.1:8000"}).find("enableServiceLinks"),
      std::string::npos);
  auto parsed = Parse({"--model", "m"}, {"HGRN2_SERVICE_HOST=10.0.0.1", "HGRN2_PORT=tcp://x",
                                         "HGRN2_MAX_SEQS=3", "PATH=/bin"});
  ASSERT_TRUE(parsed.ok());
  ASSERT_EQ(parsed->warnings.size(), 1u);
  EXPECT_NE(parsed->warnings[0].find("HGRN2_MAX_SEQS"), std::string::npos);
}

TEST_F(FlagsTest, HelpNamesEveryFlagAndVersionIsPrinted) {
  auto help = Parse({"--help"});
  ASSERT_TRUE(help.ok());
  for (const OptionSpec& spec : OptionTable()) {
    EXPECT_NE(help->message.find("--" + spec.name), std::string::npos) << spec.name;
  }
  auto version = Parse({"--version"});
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(version->message, std::string("hgrn2-server ") + ServerVersion() + "\n");
}

TEST_F(FlagsTest, NamesAreUnique) {
  std::set<std::string> names;
  for (const OptionSpec& spec : OptionTable()) EXPECT_TRUE(names.insert(spec.name).second);
}

// HGRN2_UPDATE_DOCS=1 rewrites the table instead.
TEST_F(FlagsTest, DocumentationIsUpToDate) {
  const std::string path = HGRN2_SOURCE_DIR "/docs/flags.md";
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  std::string document = text.str();
  const std::string begin = "<!-- table: begin -->\n";
  const std::string end = "<!-- table: end -->\n";
  const size_t from = document.find(begin);
  const size_t to = document.find(end);
  ASSERT_TRUE(from != std::string::npos && to != std::string::npos) << path;
  const size_t table = from + begin.size();
  if (std::getenv("HGRN2_UPDATE_DOCS") != nullptr) {
    document.replace(table, to - table, FlagsMarkdown());
    std::ofstream(path) << document;
    return;
  }
  EXPECT_EQ(document.substr(table, to - table), FlagsMarkdown())
      << "run HGRN2_UPDATE_DOCS=1 flags_test";
}

}  // namespace
}  // namespace hgrn2
