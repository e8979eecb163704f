// Parsing of the command line.
#include "client/cli.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "client/connection.h"
#include "client/json_output.h"
#include "client/load/load_options.h"
#include "client/sampling_flags.h"
#include "client/text_io.h"

namespace hgrn2::client {
namespace {

int ExitCode(std::vector<const char*> args) {
  args.insert(args.begin(), "hgrn2-client");
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = RunCommandLine(static_cast<int>(args.size()), args.data());
  testing::internal::GetCapturedStdout();
  testing::internal::GetCapturedStderr();
  return code;
}

v1::SamplingParams ParseSampling(const std::string& line) {
  CLI::App app;
  v1::SamplingParams params;
  AddSamplingOptions(&app, &params);
  app.parse(line);
  return params;
}

TEST(Cli, ExitCodes) {
  EXPECT_EQ(ExitCode({"--version"}), 0);
  EXPECT_EQ(ExitCode({"--help"}), 0);
  EXPECT_EQ(ExitCode({"complete", "--help"}), 0);
  EXPECT_EQ(ExitCode({}), 2);
  EXPECT_EQ(ExitCode({"nonsense"}), 2);
  EXPECT_EQ(ExitCode({"complete", "--max-tokens", "many"}), 2);
  EXPECT_EQ(ExitCode({"complete", "x", "--tokens", "1,x"}), 2);
  EXPECT_EQ(ExitCode({"info", "--tls", "--tls-ca", "/nonexistent"}), 2);
  EXPECT_EQ(ExitCode({"info", "--timeout", "-1"}), 2);
}

TEST(Cli, EveryFieldOfSamplingParamsHasAFlagAndHelp) {
  CLI::App app;
  v1::SamplingParams params;
  AddSamplingOptions(&app, &params);
  const auto* descriptor = v1::SamplingParams::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const std::string& name = descriptor->field(i)->name();
    EXPECT_NE(app.get_option_no_throw("--" + name), nullptr) << name;
    EXPECT_FALSE(SamplingHelp(name).empty()) << name;
  }
}

TEST(Cli, SamplingFlagsReachTheirFields) {
  const auto p = ParseSampling(
      "--max-tokens 5 --temperature 0.5 --top_p 0.9 --top-k 40 --seed 18446744073709551615 --n 3 "
      "--stop END --stop ',' --stop-token-ids 1,2 --stop-token-ids 3 --logit-bias 7:-1.5 "
      "--logit-bias 8:2 --ignore-eos --no-skip-special-tokens --logprobs 2");
  EXPECT_EQ(p.max_tokens(), 5);
  EXPECT_FLOAT_EQ(p.temperature(), 0.5);
  EXPECT_FLOAT_EQ(p.top_p(), 0.9F);
  EXPECT_EQ(p.top_k(), 40);
  EXPECT_EQ(p.seed(), 18446744073709551615u);
  EXPECT_EQ(p.n(), 3);
  ASSERT_EQ(p.stop_size(), 2);
  EXPECT_EQ(p.stop(1), ",");
  EXPECT_EQ(p.stop_token_ids_size(), 3);
  EXPECT_FLOAT_EQ(p.logit_bias().at(7), -1.5);
  EXPECT_FLOAT_EQ(p.logit_bias().at(8), 2);
  EXPECT_TRUE(p.ignore_eos());
  EXPECT_TRUE(p.has_skip_special_tokens());
  EXPECT_FALSE(p.skip_special_tokens());
  EXPECT_EQ(p.logprobs(), 2);
  EXPECT_FALSE(p.has_min_p());  // not given: the server's default
}

TEST(Cli, BadLogitBiasIsAUsageError) {
  for (const char* bad : {"7", "7:", ":1", "a:1", "7:1x", "-1:2", "7:1:2"}) {
    EXPECT_THROW(ParseSampling(std::string("--logit-bias ") + bad), CLI::ParseError) << bad;
  }
}

TEST(Cli, TargetComesFromTheEnvironment) {
  const auto parse = [](const std::string& line) {
    CLI::App app;
    ConnectionOptions options;
    AddConnectionOptions(&app, &options);
    app.parse(line);
    return options.targets;
  };
  EXPECT_EQ(parse(""), std::vector<std::string>{"localhost:50051"});
  setenv("HGRN2_TARGET", "elsewhere:1", 1);
  EXPECT_EQ(parse(""), std::vector<std::string>{"elsewhere:1"});
  EXPECT_EQ(parse("--target a:1 --target b:2"), (std::vector<std::string>{"a:1", "b:2"}));
  unsetenv("HGRN2_TARGET");
}

TEST(Cli, LoadFlagsAreCheckedTogether) {
  const auto resolve = [](const std::string& line) {
    CLI::App app;
    LoadOptions options;
    AddLoadOptions(&app, &options);
    app.parse(line);
    const absl::Status status = Resolve(&options);
    EXPECT_TRUE(status.ok()) << status;
    return options;
  };
  const LoadOptions plain = resolve("");
  EXPECT_EQ(plain.runner.max_concurrency, 1);
  EXPECT_EQ(plain.runner.duration_s, 10);
  EXPECT_TRUE(plain.base.sampling().ignore_eos());
  const LoadOptions open =
      resolve("--request-rate 5 --burstiness 0.5 --num-prompts 7 --goodput ttft:200,itl:20");
  EXPECT_EQ(open.runner.max_concurrency, 0);
  EXPECT_EQ(open.runner.max_requests, 7u);
  EXPECT_EQ(open.workload.arrival, ArrivalKind::kGamma);
  EXPECT_EQ(open.runner.goodput.itl, 20'000'000);
  EXPECT_NE(DescribeWorkload(open).find("burstiness 0.5"), std::string::npos);
  EXPECT_FALSE(resolve("--no-ignore-eos").base.sampling().ignore_eos());
}

TEST(TextIo, ParsesTokenIds) {
  EXPECT_EQ(ParseTokenIds("[1, 2,3 4]\n").value(), (std::vector<int32_t>{1, 2, 3, 4}));
  EXPECT_TRUE(ParseTokenIds("").value().empty());
  for (const char* bad : {"1,-2", "x", "1.5", "99999999999"}) EXPECT_FALSE(ParseTokenIds(bad).ok());
}

TEST(TextIo, TerminalEscapesBecomeVisible) {
  EXPECT_EQ(EscapeControls("a\x1b[31mb\n\tc\x7f"), "a^[[31mb\n\tc^?");
  EXPECT_EQ(EscapeControls("\xc2\x9b"
                           "1m \xc3\xa9 \xc2\xa0"),
            "\\x9b1m \xc3\xa9 \xc2\xa0");
}

TEST(JsonOutput, BrokenUtf8StaysReadableAndExactInBytes) {
  v1::TokenLogprob token;
  token.set_token("\xe4\xbd");
  const auto json = nlohmann::json::parse(DumpLine(ToJson(token)));
  EXPECT_EQ(json["bytes"], nlohmann::json({0xe4, 0xbd}));
  EXPECT_TRUE(json["logprob"].is_null());
}

}  // namespace
}  // namespace hgrn2::client
