#include "client/load/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "client/load/spec.h"

namespace hgrn2::client {

absl::StatusOr<double> FindMaxRate(const FindMaxOptions& options,
                                   const std::function<absl::StatusOr<bool>(double)>& probe) {
  double good = 0;
  double bad = 0;  // 0: none known
  double rate = options.start;
  for (int i = 0; i < options.max_probes && rate >= options.lowest; ++i) {
    const absl::StatusOr<bool> accepted = probe(rate);
    if (!accepted.ok()) {
      if (good > 0) break;
      return accepted.status();
    }
    (*accepted ? good : bad) = rate;
    if (bad == 0) {
      rate *= 2;
    } else if (good == 0) {
      rate /= 2;
    } else {
      if (bad <= good * (1 + options.precision)) break;
      rate = std::sqrt(good * bad);
    }
  }
  return good;
}

absl::StatusOr<std::vector<double>> ParseSweep(const std::string& spec) {
  const auto error = [&](const char* problem) {
    return absl::InvalidArgumentError(fmt::format("--sweep '{}': {}", spec, problem));
  };
  absl::StatusOr<Spec> parsed = ParseSpec(spec);
  if (!parsed.ok() || !parsed->name.empty() || parsed->numbers.empty()) {
    return error("expected R1,R2,... or FROM:TO:COUNT");
  }
  std::vector<double> rates = parsed->numbers;
  if (spec.find(':') != std::string::npos) {
    const double count = rates.size() == 3 ? rates[2] : 0;
    if (count < 2 || count > 1000 || rates[0] <= 0 || rates[1] <= rates[0]) {
      return error("expected FROM:TO:COUNT with 0 < FROM < TO and COUNT in [2, 1000]");
    }
    const double from = rates[0];
    const double ratio = rates[1] / rates[0];
    rates.clear();
    for (int i = 0; i < static_cast<int>(count); ++i) {
      rates.push_back(from * std::pow(ratio, i / (std::floor(count) - 1)));
    }
  }
  std::sort(rates.begin(), rates.end());
  if (rates.front() <= 0 || std::isinf(rates.back())) return error("rates must be finite and > 0");
  return rates;
}

}  // namespace hgrn2::client
