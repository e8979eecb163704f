// Elements of an input tensor, in either of the protocol's two forms.
#pragma once

#include <kserve/open_inference.pb.h>

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace hgrn2 {

// A parameter's value, whatever carried it.
using InferValue = std::variant<bool, int64_t, uint64_t, double, std::string>;

struct InferTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<InferValue> values;  // in row-major order
};

// Every input. INVALID_ARGUMENT names the tensor: an unknown or unsupported datatype, a shape that
// does not agree with the number of elements, contents in the wrong field or in both forms, raw
// bytes of the wrong length, a name that occurs twice.
absl::StatusOr<std::vector<InferTensor>> ReadInputs(const inference::ModelInferRequest& request);

// Appends a text in the form of raw_output_contents.
void AppendRawBytes(const std::string& text, std::string* out);

}  // namespace hgrn2
