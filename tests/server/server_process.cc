#include "tests/server/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/check.h"

namespace hgrn2::testing {
namespace {

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

ServerProcess::ServerProcess(std::vector<std::string> flags, std::vector<std::string> environment) {
  int fds[2];
  HGRN2_CHECK(pipe2(fds, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
  flags.insert(flags.begin(), HGRN2_SERVER_BINARY);
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const int error = posix_spawn(&pid_, HGRN2_SERVER_BINARY, &actions, nullptr,
                                Pointers(flags).data(), Pointers(environment).data());
  HGRN2_CHECK(error == 0);
  posix_spawn_file_actions_destroy(&actions);
  close(fds[1]);
  reader_ = std::thread([this, fd = fds[0]] { ReadLog(fd); });
}

ServerProcess::~ServerProcess() {
  if (!exit_status_.has_value()) {
    kill(pid_, SIGKILL);
    WaitForExit();
  }
  reader_.join();
}

std::vector<std::string> ServerProcess::WithModel(std::vector<std::string> flags) {
  std::vector<std::string> out = {"--model",     HGRN2_SOURCE_DIR "/models/hgrn2-gutenberg-12m",
                                  "--host",      "127.0.0.1",
                                  "--grpc-port", "0",
                                  "--http-port", "0",
                                  "--device",    "cpu"};
  // A flag that is given replaces ours: none may be given twice.
  for (const std::string& flag : flags) {
    for (size_t i = 0; i < out.size(); i += 2) {
      if (out[i] != flag) continue;
      out.erase(out.begin() + static_cast<std::ptrdiff_t>(i),
                out.begin() + static_cast<std::ptrdiff_t>(i) + 2);
      break;
    }
  }
  out.insert(out.end(), flags.begin(), flags.end());
  return out;
}

void ServerProcess::ReadLog(int fd) {
  std::string line;
  char chunk[4096];
  for (ssize_t n; (n = read(fd, chunk, sizeof(chunk))) > 0;) {
    for (ssize_t i = 0; i < n; ++i) {
      line += chunk[i];
      if (chunk[i] != '\n') continue;
      TakeLine(line);
      line.clear();
    }
  }
  close(fd);
  TakeLine(line);
  MutexLock lock(&mu_);
  log_ended_ = true;
  cv_.NotifyAll();
}

void ServerProcess::TakeLine(const std::string& line) {
  const auto port_after = [&](const char* marker) {
    const size_t at = line.find(marker);
    if (at == std::string::npos) return 0;
    return std::atoi(line.c_str() + line.rfind(':') + 1);
  };
  MutexLock lock(&mu_);
  log_ += line;
  if (const int port = port_after("gRPC listening on 127.0.0.1:")) grpc_port_ = port;
  if (const int port = port_after("HTTP listening on 127.0.0.1:")) http_port_ = port;
  cv_.NotifyAll();
}

bool ServerProcess::WaitUntilListening() {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  MutexLock lock(&mu_);
  while ((grpc_port_ == 0 || http_port_ == 0) && !log_ended_ &&
         std::chrono::steady_clock::now() < give_up) {
    cv_.WaitFor(&mu_, std::chrono::milliseconds(100));
  }
  return grpc_port_ != 0 && http_port_ != 0;
}

void ServerProcess::Signal(int number) { kill(pid_, number); }

std::optional<int> ServerProcess::WaitForExit(std::chrono::milliseconds timeout) {
  const auto give_up = std::chrono::steady_clock::now() + timeout;
  while (!exit_status_.has_value()) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      break;
    }
    if (std::chrono::steady_clock::now() > give_up) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return exit_status_;
}

}  // namespace hgrn2::testing
