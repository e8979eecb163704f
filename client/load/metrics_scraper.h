// The server's own Prometheus metrics, read every second beside a run.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "client/connection.h"

namespace hgrn2::client {

// Prometheus text format to values; samples of one name are summed over their labels; histogram
// buckets are left out.
std::map<std::string, double> ParseMetrics(const std::string& text);

// Scrapes from construction to Finish, on a thread of its own.
class MetricsScraper {
 public:
  // The API key and TLS files are those of `connection`.
  MetricsScraper(std::string url, const ConnectionOptions& connection);
  ~MetricsScraper();

  // {"url", "error" if the last scrape failed, "delta": {counter: increase over the run},
  //  "series": {gauge: [[seconds, value], ...]}}
  nlohmann::ordered_json Finish();

 private:
  void Loop();
  void ScrapeOnce();

  const std::string url_;
  const ConnectionOptions connection_;
  const std::chrono::steady_clock::time_point start_;
  std::mutex mu_;
  std::condition_variable changed_;
  bool done_ = false;
  std::string error_;
  std::map<std::string, double> first_, last_;
  std::map<std::string, nlohmann::ordered_json> series_;
  std::thread thread_;
};

}  // namespace hgrn2::client
