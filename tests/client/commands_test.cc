// The subcommands against a scripted server, through the command line.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "client/cli.h"
#include "client/text_io.h"
#include "tests/client/scripted_server.h"

namespace hgrn2::client {
namespace {

using Json = nlohmann::json;

Script Words(int count) {
  Script script;
  for (int i = 0; i < count; ++i) script.token_at_s.push_back(0.001 * i);
  return script;
}

class Commands : public testing::Test {
 protected:
  struct Output {
    int code;
    std::string out;
    std::string err;
  };

  Output Run(std::vector<std::string> args) {
    args.insert(args.begin(), "hgrn2-client");
    args.insert(args.begin() + 2, {"--target", server_.address()});
    std::vector<const char*> argv;
    for (const std::string& arg : args) argv.push_back(arg.c_str());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    Output output;
    output.code = RunCommandLine(static_cast<int>(argv.size()), argv.data());
    output.out = testing::internal::GetCapturedStdout();
    output.err = testing::internal::GetCapturedStderr();
    return output;
  }

  static std::vector<Json> Lines(const std::string& text) {
    std::vector<Json> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  static std::string TempFile(const std::string& name, const std::string& text) {
    const std::string path = testing::TempDir() + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  Script script_ = Words(3);
  ScriptedServer server_{[this](const auto&, SteadyTime) { return script_; }};
};

TEST_F(Commands, CompleteStreamsText) {
  const Output o = Run({"complete", "Once", "--stats", "--api-key", "secret"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, "Hello w1 w2\n");
  EXPECT_NE(o.err.find("3 completion tokens"), std::string::npos) << o.err;
  EXPECT_EQ(server_.requests().at(0).prompts(0).text(), "Once");
  EXPECT_EQ(server_.metadata().at(0).find("authorization")->second, "Bearer secret");
}

TEST_F(Commands, CompleteWritesJsonLines) {
  const Output o = Run({"complete", "--tokens", "1,2,3", "--json"});
  EXPECT_EQ(o.code, 0) << o.err;
  const auto lines = Lines(o.out);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["text"], "Hello");
  EXPECT_EQ(lines[0]["token_ids"], Json({100}));
  EXPECT_EQ(lines[2]["finish_reason"], "length");
  EXPECT_EQ(lines[3]["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(server_.requests().at(0).prompts(0).tokens().ids_size(), 3);
}

TEST_F(Commands, CompleteReadsFilesAndSeveralPrompts) {
  const std::string file = TempFile("prompt.txt", "from a file\n");
  EXPECT_EQ(Run({"complete", "one", "two", "--file", file}).code, 0);
  const auto request = server_.requests().at(0);
  ASSERT_EQ(request.prompts_size(), 3);
  EXPECT_EQ(request.prompts(1).text(), "two");
  EXPECT_EQ(request.prompts(2).text(), "from a file\n");
  EXPECT_EQ(Run({"complete", "--file", "/nonexistent"}).code, 2);
}

TEST_F(Commands, CompleteWholeAnswerWithChoices) {
  const Output text = Run({"complete", "x", "--no-stream", "--n", "2"});
  EXPECT_EQ(text.out, "--- choice 0\nchoice 0\n--- choice 1\nchoice 1\n");
  const Output json = Run({"complete", "x", "--no-stream", "--n", "2", "--json"});
  EXPECT_EQ(Lines(json.out).at(0)["choices"][1]["text"], "choice 1");
}

TEST_F(Commands, ErrorsNameCodeFieldAndRetry) {
  script_ = Words(0);
  script_.status =
      DetailedStatus(grpc::StatusCode::INVALID_ARGUMENT, "must be in [0, 1]", "sampling.top_p", 2);
  const Output o = Run({"complete", "x"});
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.err.find("INVALID_ARGUMENT: must be in [0, 1]"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("field sampling.top_p"), std::string::npos);
  EXPECT_NE(o.err.find("retry after 2 s"), std::string::npos);
}

TEST_F(Commands, TimeoutIsADeadline) {
  script_.token_at_s = {3.0};
  const Output o = Run({"complete", "x", "--timeout", "0.1"});
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.err.find("DEADLINE_EXCEEDED"), std::string::npos) << o.err;
}

TEST_F(Commands, TokenizeAndBack) {
  EXPECT_EQ(Run({"tokenize", "Hi!"}).out, "0,72,105,33\n");
  EXPECT_EQ(Run({"tokenize", "Hi!", "--no-add-special-tokens"}).out, "72,105,33\n");
  EXPECT_EQ(Lines(Run({"tokenize", "Hi", "--json"}).out).at(0)["tokens"], Json({"<s>", "H", "i"}));
  EXPECT_EQ(Run({"detokenize", "0,72,105"}).out, "<s>Hi\n");
  EXPECT_EQ(Run({"detokenize", "0", "72", "105", "--skip-special-tokens"}).out, "Hi\n");
  EXPECT_EQ(Run({"detokenize", "x"}).code, 2);
}

TEST_F(Commands, InfoAndHealth) {
  EXPECT_EQ(Lines(Run({"info", "--json"}).out).at(0)["vocab_size"], 1000);
  EXPECT_NE(Run({"info"}).out.find("vocab_size"), std::string::npos);
  const Output missing = Run({"info", "--model", "other"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_NE(missing.err.find("NOT_FOUND"), std::string::npos);
  EXPECT_EQ(Run({"health"}).code, 0);
  EXPECT_EQ(Run({"health", "--service", "down"}).code, 1);
  EXPECT_EQ(Run({"health", "--service", "unknown"}).code, 1);
  server_.Stop();
  EXPECT_EQ(Run({"health", "--timeout", "1"}).code, 1);
}

TEST_F(Commands, ScoreOfArguments) {
  const Output o = Run({"score", "--context", "c", "A", "AB", "--stats"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("-0.065000"), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("-0.131000"), std::string::npos) << o.out;
  EXPECT_NE(o.err.find("3 scored tokens"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("first continuation best: 1 of 1"), std::string::npos) << o.err;
}

TEST_F(Commands, ScoreOfManyLinesIsInOrderConcurrentAndComplete) {
  std::string input;
  for (int i = 0; i < 300; ++i) {
    input += "{\"context\": [1, 2], \"continuations\": [[" + std::to_string(i) + "], \"B\"], " +
             "\"id\": \"line " + std::to_string(i) + "\"}\n";
  }
  server_.score_refusals = 5;
  const Output o = Run({"score", "--input", TempFile("score.jsonl", input), "--json", "--details",
                        "--concurrency", "16"});
  EXPECT_EQ(o.code, 0) << o.err;
  const auto lines = Lines(o.out);
  ASSERT_EQ(lines.size(), 300u);
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(lines[i]["index"], i);
    EXPECT_EQ(lines[i]["id"], "line " + std::to_string(i));
    EXPECT_EQ(lines[i]["scores"][0]["tokens"][0]["token_id"], i);
    EXPECT_NEAR(lines[i]["scores"][0]["sum_logprob"].get<double>(), -i / 1000.0, 1e-9);
  }
  EXPECT_GT(server_.score_peak, 4);
  EXPECT_LE(server_.score_peak, 16);
}

TEST_F(Commands, ScoreNamesTheBadLine) {
  for (const char* bad : {"nonsense", "{\"context\": 5, \"continuations\": [\"a\"]}",
                          "{\"continuations\": []}", "{\"continuations\": [[-1]]}"}) {
    const Output o =
        Run({"score", "--input",
             TempFile("bad.jsonl", "{\"continuations\": [\"a\"]}\n" + std::string(bad))});
    EXPECT_EQ(o.code, 2);
    EXPECT_NE(o.err.find("line 2"), std::string::npos) << o.err;
  }
  EXPECT_EQ(Run({"score"}).code, 2);
}

TEST_F(Commands, ScoreReportsFailedLines) {
  server_.score_refusals = 1000;
  const Output o = Run({"score", "a", "--json", "--max-retries", "2"});
  EXPECT_EQ(o.code, 1);
  EXPECT_EQ(Lines(o.out).at(0)["error"]["code"], "RESOURCE_EXHAUSTED");
}

TEST_F(Commands, LoadWritesItsFiles) {
  const std::string json = testing::TempDir() + "/load.json";
  const std::string csv = testing::TempDir() + "/load.csv";
  const Output o = Run({"load", "--requests", "20", "--concurrency", "4", "--quiet", "--json", json,
                        "--csv", csv, "--goodput", "ttft:5000"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("Time to first token"), std::string::npos) << o.out;
  const Json run = Json::parse(ReadFile(json).value());
  EXPECT_EQ(run["completed"], 20);
  EXPECT_EQ(run["hgrn2"]["good_share"], 1.0);
  const std::string lines = ReadFile(csv).value();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 21);
}

TEST_F(Commands, LoadUsageErrors) {
  EXPECT_EQ(Run({"load", "--goodput", "latency:3"}).code, 2);
  EXPECT_EQ(Run({"load", "--rate", "fast"}).code, 2);
  EXPECT_EQ(Run({"load", "--rate", "inf"}).code, 2);
  EXPECT_EQ(Run({"load", "--prompt-tokens", "0"}).code, 2);
  EXPECT_EQ(Run({"load", "--concurrency", "0"}).code, 2);
}

TEST_F(Commands, PrintedSchedulesReplay) {
  const Output o = Run({"load", "--rate", "100", "--requests", "30", "--prompt-tokens",
                        "uniform:1:9", "--print-schedule"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(Lines(o.out).size(), 30u);
  EXPECT_TRUE(server_.requests().empty());
  const Output again = Run({"load", "--trace", TempFile("s.jsonl", o.out), "--print-schedule"});
  EXPECT_EQ(Lines(again.out), Lines(o.out));
}

// The real binary: signals are the process's business.
class Binary : public Commands {
 protected:
  pid_t Start(std::vector<std::string> args, const std::string& out_path) {
    args.insert(args.begin(), HGRN2_CLIENT_BINARY);
    args.insert(args.end(), {"--target", server_.address()});
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    std::remove(out_path.c_str());  // what an earlier run left is not this one's output
    const pid_t pid = fork();
    if (pid == 0) {
      if (std::freopen(out_path.c_str(), "w", stdout) == nullptr) _exit(99);
      execv(argv[0], argv.data());
      _exit(98);
    }
    return pid;
  }
  static int Wait(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void WaitForRequests(size_t count) {
    for (int i = 0; i < 2000 && server_.requests().size() < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
};

TEST_F(Binary, CtrlCStillWritesWhatWasMeasured) {
  const std::string json = testing::TempDir() + "/interrupted.json";
  const std::string out = testing::TempDir() + "/interrupted.txt";
  const pid_t pid =
      Start({"load", "--duration", "600", "--concurrency", "2", "--quiet", "--json", json}, out);
  WaitForRequests(20);
  kill(pid, SIGINT);
  EXPECT_EQ(Wait(pid), 130);
  const Json run = Json::parse(ReadFile(json).value());
  EXPECT_GE(run["completed"].get<int>(), 15);
  EXPECT_EQ(run["hgrn2"]["stopped"], true);
  EXPECT_NE(ReadFile(out).value().find("Time to first token"), std::string::npos);
}

TEST_F(Binary, CtrlCCancelsACompletion) {
  script_.wait_for_cancel = true;
  const std::string out = testing::TempDir() + "/cancelled.txt";
  const pid_t pid = Start({"complete", "x", "--request-id", "it"}, out);
  for (int i = 0; i < 2000 && ReadFile(out).value_or("").find("w2") == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(pid, SIGINT);
  EXPECT_EQ(Wait(pid), 130);
  WaitForRequests(1);
  EXPECT_TRUE(server_.served().at("it").cancelled);
}

}  // namespace
}  // namespace hgrn2::client
