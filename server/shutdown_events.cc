#include "server/shutdown_events.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>
#include <utility>

namespace hgrn2 {

ShutdownEvents& ShutdownEvents::Install() {
  auto* const events = new ShutdownEvents;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a client that has gone is an error code, not a death
  std::thread([events, set] {
    int number = 0;
    sigwait(&set, &number);
    if (!events->armed_) _exit(128 + number);
    events->Post({false, number == SIGTERM ? "SIGTERM" : "SIGINT"});
    sigwait(&set, &number);
    _exit(128 + number);
  }).detach();
  return *events;
}

void ShutdownEvents::Post(Event event) {
  {
    MutexLock lock(&mu_);
    if (posted_) return;
    posted_ = true;
    event_ = std::move(event);
  }
  cv_.NotifyAll();
}

ShutdownEvents::Event ShutdownEvents::Wait() {
  MutexLock lock(&mu_);
  while (!posted_) cv_.Wait(&mu_);
  return event_;
}

}  // namespace hgrn2
