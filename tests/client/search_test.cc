#include "client/load/search.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>
#include <thread>

#include "client/http_get.h"
#include "client/load/metrics_scraper.h"

namespace hgrn2::client {
namespace {

TEST(FindMax, FindsTheEdgeFromBelowAndAbove) {
  for (const double edge : {0.3, 7.0, 1000.0}) {
    for (const double start : {1.0, 50.0}) {
      int probes = 0;
      FindMaxOptions options;
      options.start = start;
      options.precision = 0.02;
      const double found = FindMaxRate(options, [&](double rate) -> absl::StatusOr<bool> {
                             ++probes;
                             return rate <= edge;
                           }).value();
      EXPECT_LE(found, edge);
      EXPECT_GE(found * 1.02, edge);
      EXPECT_LT(probes, 25);
    }
  }
}

TEST(FindMax, NothingIsGoodEnough) {
  FindMaxOptions options;
  EXPECT_EQ(FindMaxRate(options, [](double) -> absl::StatusOr<bool> { return false; }).value(), 0);
}

TEST(FindMax, AnInterruptionKeepsTheBestSoFar) {
  FindMaxOptions options;
  const auto probe = [](double rate) -> absl::StatusOr<bool> {
    if (rate > 10) return absl::CancelledError("interrupted");
    return true;
  };
  EXPECT_EQ(FindMaxRate(options, probe).value(), 8);
  options.start = 20;
  EXPECT_FALSE(FindMaxRate(options, probe).ok());
}

TEST(Sweep, ParsesListsAndRanges) {
  EXPECT_EQ(ParseSweep("4,1,2").value(), (std::vector<double>{1, 2, 4}));
  const auto range = ParseSweep("1:100:3").value();
  ASSERT_EQ(range.size(), 3u);
  EXPECT_NEAR(range[1], 10, 1e-9);
  for (const char* bad : {"", "0", "1,-2", "5:1:3", "1:2:1", "x", "1:2", "1,inf"}) {
    EXPECT_FALSE(ParseSweep(bad).ok()) << bad;
  }
}

TEST(Metrics, ParsesThePrometheusTextFormat) {
  const auto values = ParseMetrics(
      "# HELP x y\n# TYPE x counter\n"
      "vllm:prompt_tokens_total{model_name=\"a\"} 5\n"
      "vllm:prompt_tokens_total{model_name=\"b} \\\" {\"} 1.5e1 1700000000\n"
      "plain 3\nhist_bucket{le=\"+Inf\"} 9\nhist_count 2\nbroken{\nbroken 2x\n\n");
  EXPECT_DOUBLE_EQ(values.at("vllm:prompt_tokens_total"), 20);
  EXPECT_DOUBLE_EQ(values.at("plain"), 3);
  EXPECT_DOUBLE_EQ(values.at("hist_count"), 2);
  EXPECT_EQ(values.count("hist_bucket"), 0u);
}

// Answers every connection with the next body; a body of "" answers 500.
class TinyHttpServer {
 public:
  explicit TinyHttpServer(std::vector<std::string> bodies)
      : acceptor_(io_, {boost::asio::ip::make_address("127.0.0.1"), 0}), thread_([this, bodies] {
          for (const std::string& body : bodies) {
            boost::asio::ip::tcp::socket socket(io_);
            boost::system::error_code error;
            acceptor_.accept(socket, error);
            if (error) return;
            boost::asio::streambuf request;
            boost::asio::read_until(socket, request, "\r\n\r\n", error);
            const std::string status = body.empty() ? "500 Oops" : "200 OK";
            boost::asio::write(socket,
                               boost::asio::buffer("HTTP/1.1 " + status + "\r\nContent-Length: " +
                                                   std::to_string(body.size()) + "\r\n\r\n" + body),
                               error);
          }
        }) {}
  ~TinyHttpServer() { thread_.join(); }
  std::string url() const {
    return "http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port()) + "/metrics";
  }

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::thread thread_;
};

TEST(Metrics, ScrapesDeltasAndSeries) {
  const std::string gauge = "vllm:num_requests_running{model_name=\"m\"} ";
  TinyHttpServer server({gauge + "1\nvllm:generation_tokens_total 100\n",
                         gauge + "3\nvllm:generation_tokens_total 350\n"});
  MetricsScraper scraper(server.url(), {});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // the first scrape, not a second
  const auto json = scraper.Finish();
  EXPECT_FALSE(json.contains("error")) << json;
  EXPECT_EQ(json["delta"]["vllm:generation_tokens_total"], 250);
  ASSERT_EQ(json["series"]["vllm:num_requests_running"].size(), 2u);
  EXPECT_EQ(json["series"]["vllm:num_requests_running"][1][1], 3);
}

TEST(Metrics, FailuresAreReportedNotFatal) {
  EXPECT_FALSE(HttpGet("ftp://localhost/metrics").ok());
  EXPECT_FALSE(HttpGet("http://127.0.0.1:1/metrics").ok());
  TinyHttpServer broken({""});
  const auto status = HttpGet(broken.url()).status();
  EXPECT_NE(std::string(status.message()).find("500"), std::string::npos) << status;
}

}  // namespace
}  // namespace hgrn2::client
