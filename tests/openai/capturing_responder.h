// A responder that keeps what it is given; the test plays the socket.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "server/http/http_types.h"

namespace hgrn2::testing {

class CapturingResponder : public HttpResponder {
 public:
  void Listen(std::shared_ptr<HttpStreamListener> listener) override {
    MutexLock lock(&mu_);
    listener_ = std::move(listener);
  }
  void Send(HttpResponse response) override {
    MutexLock lock(&mu_);
    sent_ = std::move(response);
    finished_ = true;
    changed_.NotifyAll();
  }
  void Begin(HttpResponse head) override {
    MutexLock lock(&mu_);
    pieces_.push_back(head.body);
    sent_ = std::move(head);
    changed_.NotifyAll();
  }
  void Write(std::string piece) override {
    MutexLock lock(&mu_);
    pieces_.push_back(std::move(piece));
  }
  void Finish() override {
    MutexLock lock(&mu_);
    finished_ = true;
  }

  // As the connection does, when the socket has taken everything, or the peer has gone.
  void Drain() { Listener()->OnWritten(); }
  void Leave() { Listener()->OnPeerGone(); }
  // Breaks the cycle of responder and call, as the end of an answer does.
  void Release() {
    std::shared_ptr<HttpStreamListener> listener;
    MutexLock lock(&mu_);
    listener = std::move(listener_);
  }

  // Waits for the answer or its beginning, which may come from another thread.
  HttpResponse sent() {
    MutexLock lock(&mu_);
    for (int i = 0; i < 1000 && sent_.status == 0; ++i) {
      changed_.WaitFor(&mu_, std::chrono::milliseconds(10));
    }
    return sent_;
  }
  std::vector<std::string> pieces() {
    MutexLock lock(&mu_);
    return pieces_;
  }
  std::string all() {
    std::string out;
    for (const std::string& piece : pieces()) out += piece;
    return out;
  }
  bool finished() {
    MutexLock lock(&mu_);
    return finished_;
  }

 private:
  std::shared_ptr<HttpStreamListener> Listener() {
    MutexLock lock(&mu_);
    return listener_;
  }

  Mutex mu_;
  CondVar changed_;
  HttpResponse sent_ ABSL_GUARDED_BY(mu_) = {0, "", "", {}};
  std::vector<std::string> pieces_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<HttpStreamListener> listener_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

// The JSON texts of the "data:" lines of server-sent events.
inline std::vector<std::string> DataLines(const std::string& events) {
  std::vector<std::string> out;
  for (size_t at = 0; (at = events.find("data: ", at)) != std::string::npos;) {
    const size_t end = events.find('\n', at);
    out.push_back(events.substr(at + 6, end - at - 6));
    at = end;
  }
  return out;
}

}  // namespace hgrn2::testing
