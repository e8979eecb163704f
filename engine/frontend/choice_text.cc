#include "engine/frontend/choice_text.h"

#include <algorithm>

namespace hgrn2 {
namespace {

// Length of the longest end of `text` that is a proper beginning of `stop`.
size_t OverlapLength(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

std::string StopStringMatcher::Append(std::string_view text) {
  if (matched_.has_value() || text.empty()) return {};
  if (stops_.empty()) return std::string(text);
  held_ += text;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    // The earliest match wins; of two at one place the longer.
    if (at < first || (at == first && at != std::string::npos && stop.size() > matched_->size())) {
      first = at;
      matched_ = stop;
    }
  }
  if (matched_.has_value()) {
    held_.resize(first + (include_in_output_ ? matched_->size() : 0));
    return std::exchange(held_, {});
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, OverlapLength(held_, stop));
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

}  // namespace hgrn2
