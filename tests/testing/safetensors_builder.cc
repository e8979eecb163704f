#include "tests/testing/safetensors_builder.h"

#include <fmt/format.h>

#include <cstring>

#include "base/check.h"
#include "engine/loader/float16.h"
#include "engine/loader/weight_names.h"

namespace hgrn2::testing {

std::string SafetensorsFromHeader(uint64_t length, std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  file += header;
  file += data;
  return file;
}

std::string SafetensorsFromHeader(std::string_view header, std::string_view data) {
  return SafetensorsFromHeader(header.size(), header, data);
}

SafetensorsBuilder& SafetensorsBuilder::Add(const std::string& name, const std::string& dtype,
                                            const std::vector<int64_t>& shape,
                                            std::string_view bytes) {
  entries_ += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          entries_.empty() ? "" : ",", name, dtype, fmt::join(shape, ","),
                          data_.size(), data_.size() + bytes.size());
  data_ += bytes;
  return *this;
}

SafetensorsBuilder& SafetensorsBuilder::Add(const std::string& name, DType dtype,
                                            const std::vector<int64_t>& shape,
                                            const std::vector<float>& values) {
  HGRN2_CHECK(dtype != DType::kF8E4M3, name);
  std::string bytes;
  for (const float value : values) {
    if (dtype == DType::kF32) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      const uint16_t bits = dtype == DType::kF16 ? FloatToFloat16(value) : FloatToBFloat16(value);
      bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    }
  }
  const char* spelled = dtype == DType::kF32 ? "F32" : dtype == DType::kF16 ? "F16" : "BF16";
  return Add(name, spelled, shape, bytes);
}

std::string SafetensorsBuilder::Build() const {
  return SafetensorsFromHeader("{" + entries_ + "}", data_);
}

std::vector<NamedTensor> CheckpointTensors(const ModelWeights& weights) {
  ModelWeights copy = weights;  // the slots point into it
  TensorView lower_bounds;
  std::vector<NamedTensor> tensors;
  for (const TensorSlot& slot : TensorSlots(&copy, &lower_bounds)) {
    if (slot.role != TensorRole::kLowerBounds) tensors.push_back({slot.name, *slot.view});
  }
  return tensors;
}

}  // namespace hgrn2::testing
