#include "client/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

namespace hgrn2::client {
namespace {

std::mutex mu;
std::function<void()> current_handler;  // guarded by mu
std::atomic<bool> interrupted{false};

void WaitForSignals(sigset_t signals) {
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    const bool second = interrupted.exchange(true);
    std::lock_guard lock(mu);
    if (second || !current_handler) _exit(kInterruptedExitCode);
    current_handler();
  }
}

}  // namespace

void InstallInterruptThread() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread(WaitForSignals, signals).detach();
}

InterruptHandler::InterruptHandler(std::function<void()> handler) {
  std::lock_guard lock(mu);
  current_handler = std::move(handler);
}

InterruptHandler::~InterruptHandler() {
  std::lock_guard lock(mu);
  current_handler = nullptr;
}

bool Interrupted() { return interrupted.load(); }

}  // namespace hgrn2::client
