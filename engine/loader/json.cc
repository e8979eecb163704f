#include "engine/loader/json.h"

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/loader/printable.h"

namespace hgrn2 {
namespace {

using Json = nlohmann::json;

// First pass: builds nothing, stops at the first fault. Returning false ends the parse.
class Checker : public nlohmann::json_sax<Json> {
 public:
  explicit Checker(int max_depth) : max_depth_(max_depth) {}

  const std::string& fault() const { return fault_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(std::size_t) override { return Enter(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }

  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    fault_ = fmt::format("key \"{}\" occurs twice", Printable(name));
    return false;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    if (fault_.empty()) fault_ = fmt::format("not valid JSON at byte {}", position);
    return false;
  }

 private:
  bool Enter() {
    if (keys_.size() >= static_cast<size_t>(max_depth_)) {
      fault_ = fmt::format("JSON is nested deeper than {} levels", max_depth_);
      return false;
    }
    keys_.emplace_back();
    return true;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  const int max_depth_;
  std::vector<std::unordered_set<std::string>> keys_;  // of the open objects
  std::string fault_;
};

}  // namespace

absl::StatusOr<Json> ParseJsonObject(std::string_view text, std::string_view file,
                                     const JsonLimits& limits) {
  const auto fail = [&](std::string_view what) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: {}", file, what);
  };
  if (text.size() > limits.max_bytes) {
    return fail(fmt::format("{} bytes of JSON, the limit is {}", text.size(), limits.max_bytes));
  }
  Checker checker(limits.max_depth);
  if (!Json::sax_parse(text.begin(), text.end(), &checker)) return fail(checker.fault());
  Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return fail("must hold a JSON object");
  return json;
}

}  // namespace hgrn2
