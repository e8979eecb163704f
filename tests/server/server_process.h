// The real hgrn2-server binary as a child process, listening on ports of its own choice.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace hgrn2::testing {

class ServerProcess {
 public:
  // `flags` as given; `environment` is added to ours ("NAME=value").
  explicit ServerProcess(std::vector<std::string> flags, std::vector<std::string> environment = {});
  ~ServerProcess();  // kills it if it still runs
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // The embedded model on 127.0.0.1 with free ports, and `flags`.
  static std::vector<std::string> WithModel(std::vector<std::string> flags);

  // False if the process ended first; see log().
  bool WaitUntilListening();
  void Signal(int number);
  // The exit status, 128 + signal if a signal ended it; nullopt if it still runs after `timeout`.
  std::optional<int> WaitForExit(std::chrono::milliseconds timeout = std::chrono::seconds(60));

  int grpc_port() const { return Locked(grpc_port_); }
  int http_port() const { return Locked(http_port_); }
  std::string grpc_address() const {
    return std::string("127.0.0.1:").append(std::to_string(grpc_port()));
  }
  // Everything it wrote to stdout and stderr.
  std::string log() const { return Locked(log_); }
  pid_t pid() const { return pid_; }

 private:
  template <typename T>
  T Locked(const T& field) const {
    MutexLock lock(&mu_);
    return field;
  }
  void ReadLog(int fd);
  void TakeLine(const std::string& line);

  pid_t pid_ = -1;
  std::optional<int> exit_status_;
  mutable Mutex mu_;
  CondVar cv_;
  std::string log_;
  int grpc_port_ = 0;
  int http_port_ = 0;
  bool log_ended_ = false;
  std::thread reader_;
};

}  // namespace hgrn2::testing
