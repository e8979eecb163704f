#include "client/load/metrics_scraper.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "client/http_get.h"

namespace hgrn2::client {
namespace {

// Names whose value over time is worth a chart; everything else only by its increase.
bool IsGauge(const std::string& name) {
  for (const char* gauge :
       {"vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"}) {
    if (name == gauge) return true;
  }
  return false;
}

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

std::map<std::string, double> ParseMetrics(const std::string& text) {
  std::map<std::string, double> values;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t name_end = line.find_first_of("{ ");
    if (name_end == std::string::npos) continue;
    const std::string name = line.substr(0, name_end);
    if (EndsWith(name, "_bucket")) continue;
    size_t value_begin = name_end;
    if (line[name_end] == '{') {  // label values may hold braces and spaces, in quotes
      bool quoted = false;
      for (; value_begin < line.size() && (quoted || line[value_begin] != '}'); ++value_begin) {
        if (line[value_begin] == '\\')
          ++value_begin;
        else if (line[value_begin] == '"')
          quoted = !quoted;
      }
      ++value_begin;
    }
    if (value_begin >= line.size()) continue;
    const char* begin = line.c_str() + value_begin;
    char* end = nullptr;
    const double value = std::strtod(begin, &end);
    if (end != begin) values[name] += value;
  }
  return values;
}

MetricsScraper::MetricsScraper(std::string url, const ConnectionOptions& connection)
    : url_(std::move(url)), connection_(connection), start_(std::chrono::steady_clock::now()) {
  ScrapeOnce();  // before anything is sent, so that increases are those of the whole run
  thread_ = std::thread([this] { Loop(); });
}

MetricsScraper::~MetricsScraper() {
  if (thread_.joinable()) Finish();
}

void MetricsScraper::Loop() {
  std::unique_lock lock(mu_);
  while (!changed_.wait_for(lock, std::chrono::seconds(1), [this] { return done_; })) {
    lock.unlock();
    ScrapeOnce();
    lock.lock();
  }
}

void MetricsScraper::ScrapeOnce() {
  const std::chrono::duration<double> t = std::chrono::steady_clock::now() - start_;
  const absl::StatusOr<std::string> body = HttpGet(url_, connection_);
  std::lock_guard lock(mu_);
  error_ = body.ok() ? "" : std::string(body.status().message());
  if (!body.ok()) return;
  last_ = ParseMetrics(*body);
  if (first_.empty()) first_ = last_;
  for (const auto& [name, value] : last_) {
    if (IsGauge(name)) series_[name].push_back({t.count(), value});
  }
}

nlohmann::ordered_json MetricsScraper::Finish() {
  {
    std::lock_guard lock(mu_);
    done_ = true;
  }
  changed_.notify_all();
  thread_.join();
  ScrapeOnce();
  nlohmann::ordered_json json{{"url", url_}};
  if (!error_.empty()) json["error"] = error_;
  json["delta"] = nlohmann::ordered_json::object();
  for (const auto& [name, value] : last_) {
    const bool counter =
        EndsWith(name, "_total") || EndsWith(name, "_sum") || EndsWith(name, "_count");
    const auto before = first_.find(name);
    if (!counter || before == first_.end()) continue;
    if (value != before->second) json["delta"][name] = value - before->second;
  }
  json["series"] = nlohmann::ordered_json::object();
  for (const auto& [name, points] : series_) json["series"][name] = points;
  return json;
}

}  // namespace hgrn2::client
