#include "client/load/distribution.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "client/load/spec.h"

namespace hgrn2::client {

absl::StatusOr<Distribution> Distribution::Parse(const std::string& what, const std::string& spec,
                                                 double min) {
  Distribution d;
  d.spec_ = spec;
  d.min_ = min;
  d.max_ = std::numeric_limits<int32_t>::max();
  const auto error = [&](const std::string& problem) {
    return absl::InvalidArgumentError(fmt::format("{} '{}': {}", what, spec, problem));
  };
  if (spec.rfind("file:", 0) == 0) {
    d.kind_ = Kind::kFile;
    if (absl::Status status = d.LoadFile(spec.substr(5)); !status.ok()) {
      return error(std::string(status.message()));
    }
    d.a_ = *std::min_element(d.values_.begin(), d.values_.end());
  } else {
    absl::StatusOr<Spec> parsed = ParseSpec(spec);
    if (!parsed.ok()) return error(std::string(parsed.status().message()));
    const auto& [name, n] = *parsed;
    if ((name.empty() || name == "fixed") && n.size() == 1) {
      d.a_ = n[0];
    } else if (name == "uniform" && n.size() == 2 && n[0] <= n[1]) {
      d.kind_ = Kind::kUniform;
      d.a_ = n[0];
      d.b_ = n[1];
    } else if (name == "lognormal" && (n.size() == 2 || n.size() == 4) && n[1] >= 0) {
      d.kind_ = Kind::kLogNormal;
      d.a_ = n[0];
      d.b_ = n[1];
      if (n.size() == 4) {
        if (n[2] > n[3]) return error("MIN is above MAX");
        d.min_ = std::max(min, n[2]);
        d.max_ = n[3];
      }
    } else {
      return error("expected N, uniform:MIN:MAX, lognormal:MEDIAN:SIGMA[:MIN:MAX] or file:PATH");
    }
  }
  if (d.a_ < min) return error(fmt::format("must be at least {:g}", min));
  return d;
}

absl::Status Distribution::LoadFile(const std::string& path) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError("cannot be opened");
  double value = 0;
  while (in >> value) values_.push_back(value);
  if (!in.eof() || values_.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("entry {} of the file is not a number", values_.size() + 1));
  }
  return absl::OkStatus();
}

double Distribution::Sample(Random* random) const {
  switch (kind_) {
    case Kind::kFixed:
      return a_;
    case Kind::kUniform:
      return a_ + (b_ - a_) * random->Uniform();
    case Kind::kLogNormal:
      return std::clamp(a_ * std::exp(b_ * random->Normal()), min_, max_);
    case Kind::kFile:
      return values_[random->Below(values_.size())];
  }
  return a_;
}

int Distribution::SampleInt(Random* random) const {
  if (kind_ == Kind::kUniform) {  // every integer of the range equally probable
    const double low = std::ceil(a_);
    return static_cast<int>(
        low + static_cast<double>(
                  random->Below(static_cast<uint64_t>(std::max(0.0, std::floor(b_) - low)) + 1)));
  }
  return static_cast<int>(std::lround(Sample(random)));
}

}  // namespace hgrn2::client
