// Makes safetensors files for tests: good ones tensor by tensor, bad ones from any header text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/loader/weights.h"

namespace hgrn2::testing {

// Little-endian header length, header, data.
std::string SafetensorsFromHeader(std::string_view header, std::string_view data);
// The same with a length of one's own, true or not.
std::string SafetensorsFromHeader(uint64_t length, std::string_view header, std::string_view data);

class SafetensorsBuilder {
 public:
  // Appends a tensor; dtype as the format spells it. The bytes are taken as they are.
  SafetensorsBuilder& Add(const std::string& name, const std::string& dtype,
                          const std::vector<int64_t>& shape, std::string_view bytes);
  // Converts to dtype kF32, kF16 or kBF16.
  SafetensorsBuilder& Add(const std::string& name, DType dtype, const std::vector<int64_t>& shape,
                          const std::vector<float>& values);
  std::string Build() const;

 private:
  std::string entries_;
  std::string data_;
};

struct NamedTensor {
  std::string name;
  TensorView view;
};

// The tensors of `weights` under their names in a checkpoint file; lower bounds are not among them
// (ModelWeights keeps them in processed form).
std::vector<NamedTensor> CheckpointTensors(const ModelWeights& weights);

}  // namespace hgrn2::testing
