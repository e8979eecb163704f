// The HTML report, opened in a real browser where one is installed.
#include "client/load/html_report.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>

#include "client/load/random.h"
#include "client/load/run_report.h"
#include "client/text_io.h"

namespace hgrn2::client {
namespace {

using Json = nlohmann::ordered_json;

// A run of 20 s with some failures and a slow second.
Json MakeRun(const std::string& label, double scale, uint64_t seed) {
  Random random(seed);
  Goodput goodput;
  goodput.ttft = 200'000'000;
  RunResult result{Recorder(goodput, 10'000), {}};
  for (int i = 0; i < 400; ++i) {
    RequestRecord r;
    r.session = i;
    r.intended = static_cast<int64_t>(i) * 50'000'000;
    r.sent = r.intended + 20'000;
    const double slow = i / 20 == 9 ? 8 : 1;
    r.first = r.sent + static_cast<int64_t>(scale * slow * (5e7 + 3e7 * random.Exponential()));
    r.last = r.first;
    r.prompt_tokens = 100;
    result.recorder.OnSent(r.sent, 3 * static_cast<int>(seed) + i % 5);
    result.recorder.OnFirstToken(r.first, r.ttft());
    for (int token = 1; token < 20; ++token) {
      const auto gap = static_cast<int64_t>(scale * (8e6 + 4e6 * random.Exponential()));
      r.last += gap;
      r.max_gap = std::max(r.max_gap, gap);
      result.recorder.OnTokens(r.last, 1);
      result.recorder.OnGap(r.last, gap, false);
    }
    r.output_tokens = r.messages = 20;
    r.done = r.last + 100'000;
    r.server_queue_s = 0.01F;
    r.server_prefill_s = 0.02F;
    if (i % 37 == 5) {
      r.outcome = Outcome::kFailed;
      r.code = grpc::StatusCode::RESOURCE_EXHAUSTED;
    }
    result.recorder.OnDone(r, "queue full");
  }
  result.duration_s = 20;
  result.cpu = {20, 2, 1, 0.1};
  RunDescription d;
  d.label = label;
  d.model = "m</script><b>";  // a hostile name must not leave its JSON
  d.target = "localhost:1";
  d.workload = "constant arrivals, 20 requests/s";
  d.goodput = "ttft:200";
  return ToJson(result, d);
}

Json MakeReport() { return {{"runs", {MakeRun("before", 1, 1), MakeRun("after", 0.6, 2)}}}; }

struct Image {
  int width = 0;
  int height = 0;
  int channels = 0;
  std::vector<uint8_t> pixels;
};

uint32_t BigEndian(const std::string& s, size_t at) {
  uint32_t v = 0;
  for (int i = 0; i < 4; ++i) v = v << 8 | static_cast<uint8_t>(s.at(at + i));
  return v;
}

// 8-bit RGB or RGBA, not interlaced: what browsers write.
Image DecodePng(const std::string& png) {
  Image image;
  std::string packed;
  for (size_t at = 8; at + 12 <= png.size();) {
    const uint32_t size = BigEndian(png, at);
    const std::string type = png.substr(at + 4, 4);
    if (type == "IHDR") {
      image.width = static_cast<int>(BigEndian(png, at + 8));
      image.height = static_cast<int>(BigEndian(png, at + 12));
      image.channels = png.at(at + 17) == 6 ? 4 : 3;
    }
    if (type == "IDAT") packed += png.substr(at + 8, size);
    at += size + 12;
  }
  const size_t row = static_cast<size_t>(image.width) * image.channels;
  std::vector<uint8_t> raw((row + 1) * image.height);
  uLongf raw_size = raw.size();
  if (uncompress(raw.data(), &raw_size, reinterpret_cast<const Bytef*>(packed.data()),
                 packed.size()) != Z_OK) {
    return {};
  }
  image.pixels.resize(row * image.height);
  for (int y = 0; y < image.height; ++y) {
    const uint8_t filter = raw[y * (row + 1)];
    for (size_t i = 0; i < row; ++i) {
      const auto pixel = [&](int dy, size_t back) -> int {
        if (y < dy || i < back) return 0;
        return image.pixels[(y - dy) * row + i - back];
      };
      const int a = pixel(0, image.channels);
      const int b = pixel(1, 0);
      const int c = y > 0 ? pixel(1, image.channels) : 0;
      const int p = a + b - c;
      const int paeth = std::abs(p - a) <= std::abs(p - b) && std::abs(p - a) <= std::abs(p - c) ? a
                        : std::abs(p - b) <= std::abs(p - c)                                     ? b
                                                             : c;
      const int predicted[] = {0, a, b, (a + b) / 2, paeth};
      image.pixels[y * row + i] =
          static_cast<uint8_t>(raw[y * (row + 1) + 1 + i] + predicted[filter]);
    }
  }
  return image;
}

// Pixels within 24 of the colour in each channel (edges are blended).
int CountColor(const Image& image, int x0, int y0, int x1, int y1, std::array<int, 3> rgb) {
  int count = 0;
  for (int y = std::max(0, y0); y < std::min(image.height, y1); ++y) {
    for (int x = std::max(0, x0); x < std::min(image.width, x1); ++x) {
      const uint8_t* p = &image.pixels[(static_cast<size_t>(y) * image.width + x) * image.channels];
      count += std::abs(p[0] - rgb[0]) < 24 && std::abs(p[1] - rgb[1]) < 24 &&
               std::abs(p[2] - rgb[2]) < 24;
    }
  }
  return count;
}

std::string Browser() {
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
    if (std::system((std::string("command -v ") + name + " > /dev/null 2>&1").c_str()) == 0) {
      return name;
    }
  }
  return "";
}

std::string RunBrowser(const std::string& arguments) {
  const std::string profile = testing::TempDir() + "/chromium-profile";
  const std::string command = "timeout 120 " + Browser() +
                              " --headless --no-sandbox --disable-gpu --disable-dev-shm-usage "
                              "--hide-scrollbars --user-data-dir=" +
                              profile + " " + arguments + " 2>/dev/null";
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  pclose(pipe);
  return out;
}

TEST(HtmlReport, IsSelfContainedAndKeepsDataInsideItsJson) {
  const std::string html = HtmlReport(MakeReport());
  EXPECT_EQ(html.find("@DATA@"), std::string::npos);
  EXPECT_EQ(html.find("m</script>"), std::string::npos);
  for (const char* external : {"src=", "href=", "@import", "url("}) {
    EXPECT_EQ(html.find(external), std::string::npos) << external;
  }
  EXPECT_NE(html.find("prefers-color-scheme: dark"), std::string::npos);
  EXPECT_NE(html.find("@media print"), std::string::npos);
}

TEST(HtmlReport, RunsAreReadBackFromTheirFiles) {
  const std::string path = testing::TempDir() + "/runs.json";
  ASSERT_TRUE(WriteFile(path, MakeRun("x", 1, 3).dump()).ok());
  EXPECT_EQ(ReadRuns(path).value().size(), 1u);
  ASSERT_TRUE(WriteFile(path, MakeReport().dump()).ok());
  EXPECT_EQ(ReadRuns(path).value().size(), 2u);
  ASSERT_TRUE(WriteFile(path, "{\"a\": 1}").ok());
  EXPECT_FALSE(ReadRuns(path).ok());
  EXPECT_FALSE(ReadRuns("/nonexistent").ok());
}

// Every chart must show both runs' lines: the page reports where each chart is, and the screenshot
// must have enough pixels of each run's colour there.
class HtmlReportInBrowser : public testing::TestWithParam<bool> {};

TEST_P(HtmlReportInBrowser, RendersEveryChart) {
  if (Browser().empty()) GTEST_SKIP() << "no Chromium installed: the report was not rendered";
  const bool dark = GetParam();
  std::string html = HtmlReport(MakeReport());
  const std::string probe =
      "<script>document.querySelectorAll('figure').forEach(f => { const r = "
      "f.querySelector('svg').getBoundingClientRect(); f.dataset.rect = [r.left, r.top, r.right, "
      "r.bottom].map(Math.round).join(' '); });</script></body>";
  html.replace(html.rfind("</body>"), 7, probe);
  const std::string page = testing::TempDir() + "/report.html";
  const std::string png = testing::TempDir() + "/report.png";
  ASSERT_TRUE(WriteFile(page, html).ok());
  std::remove(png.c_str());
  const std::string mode = dark ? "--force-dark-mode --blink-settings=preferredColorScheme=0 "
                                : "--blink-settings=preferredColorScheme=1 ";
  const std::string window = mode + "--window-size=1200,5200 ";
  const std::string dom = RunBrowser(window + "--dump-dom file://" + page);
  RunBrowser(window + "--screenshot=" + png + " file://" + page);
  const absl::StatusOr<std::string> file = ReadFile(png);
  ASSERT_TRUE(file.ok()) << "no screenshot";
  const Image image = DecodePng(*file);
  ASSERT_EQ(image.width, 1200);
  EXPECT_NE(dom.find("data-ready="), std::string::npos) << "the script did not reach its end";
  EXPECT_NE(dom.find("m&lt;/script&gt;"), std::string::npos);

  using Color = std::array<int, 3>;
  const Color first = dark ? Color{0x6c, 0xb2, 0xff} : Color{0x0b, 0x62, 0xb8};
  const Color second = dark ? Color{0xff, 0x9d, 0x5c} : Color{0xc2, 0x41, 0x0c};
  std::set<std::string> titles;
  int worst_charts = 0;
  for (size_t at = 0; (at = dom.find("data-chart=\"", at)) != std::string::npos; ++at) {
    const std::string title = dom.substr(at + 12, dom.find('"', at + 12) - at - 12);
    const size_t rect = dom.find("data-rect=\"", at);
    int x0, y0, x1, y1;
    ASSERT_EQ(std::sscanf(dom.c_str() + rect + 11, "%d %d %d %d", &x0, &y0, &x1, &y1), 4) << title;
    ASSERT_LT(y1, image.height) << title;
    const int a = CountColor(image, x0, y0, x1, y1, first);
    const int b = CountColor(image, x0, y0, x1, y1, second);
    if (title == "Worst second") {
      ++worst_charts;
      EXPECT_GT(a + b, 200) << title;
    } else {
      EXPECT_GT(a, 60) << title;
      EXPECT_GT(b, 60) << title;
    }
    titles.insert(title);
  }
  EXPECT_EQ(worst_charts, 2);
  EXPECT_GE(titles.size(), 14u);  // 3 frontiers, 3 + 4 over time, 4 distributions, worst second
}
INSTANTIATE_TEST_SUITE_P(Schemes, HtmlReportInBrowser, testing::Values(false, true));

}  // namespace
}  // namespace hgrn2::client
