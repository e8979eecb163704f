// Random numbers that are the same on every machine and for every standard library: a run of the
// load tool is repeatable from its seed alone.
#pragma once

#include <cstdint>

namespace hgrn2::client {

// xoshiro256** (Blackman and Vigna 2018), seeded through SplitMix64.
class Random {
 public:
  // Independent streams for different (seed, stream, index): attribute i of a schedule does not
  // depend on how many numbers attribute i-1 consumed.
  explicit Random(uint64_t seed, uint64_t stream = 0, uint64_t index = 0);

  uint64_t Next();
  double Uniform();            // [0, 1)
  uint64_t Below(uint64_t n);  // [0, n), n > 0
  double Exponential();        // mean 1
  double Normal();             // mean 0, variance 1
  double Gamma(double shape);  // mean `shape`, scale 1; Marsaglia and Tsang 2000. shape > 0

 private:
  uint64_t state_[4];
};

}  // namespace hgrn2::client
