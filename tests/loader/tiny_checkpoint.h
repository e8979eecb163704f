// A whole checkpoint small enough to write, break and load in microseconds.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "tests/testing/temp_dir.h"

namespace hgrn2 {

struct TinyTensor {
  DType dtype;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// hidden_size 8, 2 layers, 2 heads of 4, intermediate_size 12, vocab_size 10. Tests change `config`
// and `tensors` as they like before writing.
struct TinyCheckpoint {
  enum Option { kPlain = 0, kTied = 1, kConv = 2, kNoLowerBound = 4, kNoAffine = 8 };

  explicit TinyCheckpoint(int options = kPlain, DType dtype = DType::kF32);

  std::map<std::string, std::string> config;  // key to JSON text
  std::map<std::string, TinyTensor> tensors;

  std::string ConfigJson() const;
  // The bytes of a safetensors file with all tensors, or those whose names contain `part`.
  std::string Safetensors(const std::string& part = "") const;
  // config.json and model.safetensors.
  void Write(const testing::TempDir& dir) const;
  // config.json, two shards and their index.
  void WriteSharded(const testing::TempDir& dir) const;

 private:
  void Add(const std::string& name, DType dtype, const std::vector<int64_t>& shape);
};

}  // namespace hgrn2
