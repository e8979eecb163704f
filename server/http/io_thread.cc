#include "server/http/io_thread.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>
#include <vector>

#include "server/http/http_connection.h"

namespace hgrn2 {
namespace {

// Fine enough for the shortest time-out to be kept to within a quarter.
std::chrono::milliseconds SweepInterval(const HttpServerOptions& options) {
  const auto shortest = std::min(
      {options.header_timeout, options.body_timeout, options.idle_timeout, options.write_timeout});
  return std::clamp(shortest / 4, std::chrono::milliseconds(10), std::chrono::milliseconds(1000));
}

}  // namespace

IoThread::IoThread(std::shared_ptr<HttpShared> s)
    : shared(std::move(s)),
      sweep_timer_(context),
      sweep_interval_(SweepInterval(shared->options)) {}

void IoThread::Start() {
  Sweep();
  thread_ = std::thread([this] { context.run(); });
}

void IoThread::Sweep() {
  const auto now = std::chrono::steady_clock::now();
  // A connection that closes leaves the set.
  const std::vector<std::shared_ptr<HttpConnection>> all(connections.begin(), connections.end());
  for (const auto& connection : all) connection->CheckDeadline(now);
  sweep_timer_.expires_after(sweep_interval_);
  sweep_timer_.async_wait([this](boost::system::error_code error) {
    if (!error) Sweep();
  });
}

void IoThread::Stop() {
  if (!thread_.joinable()) return;
  boost::asio::post(context, [this] {
    stopped = true;
    sweep_timer_.cancel();
    const std::vector<std::shared_ptr<HttpConnection>> all(connections.begin(), connections.end());
    for (const auto& connection : all) connection->Close();
  });
  thread_.join();  // run() returns once every aborted operation has reported
}

}  // namespace hgrn2
