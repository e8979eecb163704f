#include "server/kserve/tensor.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

constexpr int64_t kMaxElements = 1 << 20;
constexpr int kMaxTensors = 64;
constexpr size_t kMaxRank = 4;
constexpr size_t kMaxNameBytes = 128;

uint64_t LittleEndian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// Size of an element in bytes; 0 if it has none, or is no type we know.
size_t ElementSize(std::string_view datatype) {
  if (datatype == "BOOL" || datatype == "INT8" || datatype == "UINT8") return 1;
  if (datatype == "INT16" || datatype == "UINT16") return 2;
  if (datatype == "INT32" || datatype == "UINT32" || datatype == "FP32") return 4;
  if (datatype == "INT64" || datatype == "UINT64" || datatype == "FP64") return 8;
  return 0;
}

InferValue Decode(std::string_view datatype, std::string_view bytes) {
  const uint64_t bits = LittleEndian(bytes);
  if (datatype == "BOOL") return bits != 0;
  if (datatype == "FP32") {
    float value;
    const auto narrow = static_cast<uint32_t>(bits);
    std::memcpy(&value, &narrow, sizeof(value));
    return static_cast<double>(value);
  }
  if (datatype == "FP64") {
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
  if (datatype.starts_with('U')) return bits;
  const int shift = 64 - 8 * static_cast<int>(bytes.size());
  return static_cast<int64_t>(bits << shift) >> shift;
}

absl::Status ReadRawTexts(const std::string& name, std::string_view bytes, int64_t count,
                          std::vector<InferValue>* out) {
  for (int64_t i = 0; i < count; ++i) {
    if (bytes.size() < 4) return InvalidArgument(name, "raw contents end within element {}", i);
    const uint64_t length = LittleEndian(bytes.substr(0, 4));
    bytes.remove_prefix(4);
    if (length > bytes.size()) {
      return InvalidArgument(name, "element {} has {} bytes, but only {} follow", i, length,
                             bytes.size());
    }
    out->emplace_back(std::string(bytes.substr(0, length)));
    bytes.remove_prefix(length);
  }
  if (!bytes.empty()) {
    return InvalidArgument(name, "{} bytes follow the {} elements of its shape", bytes.size(),
                           count);
  }
  return absl::OkStatus();
}

absl::Status ReadRaw(const std::string& name, const std::string& datatype, const std::string& bytes,
                     int64_t count, std::vector<InferValue>* out) {
  if (datatype == "BYTES") return ReadRawTexts(name, bytes, count, out);
  const size_t size = ElementSize(datatype);
  if (bytes.size() != size * static_cast<size_t>(count)) {
    return InvalidArgument(name, "raw contents have {} bytes, the shape needs {}", bytes.size(),
                           size * count);
  }
  for (size_t at = 0; at < bytes.size(); at += size) {
    out->push_back(Decode(datatype, std::string_view(bytes).substr(at, size)));
  }
  return absl::OkStatus();
}

template <typename To, typename Repeated>
void Append(const Repeated& values, std::vector<InferValue>* out) {
  for (const auto& value : values) out->emplace_back(static_cast<To>(value));
}

absl::Status ReadContents(const inference::ModelInferRequest::InferInputTensor& input,
                          int64_t count, std::vector<InferValue>* out) {
  const inference::InferTensorContents& contents = input.contents();
  const std::string& type = input.datatype();
  if (type == "BYTES") {
    Append<std::string>(contents.bytes_contents(), out);
  } else if (type == "BOOL") {
    Append<bool>(contents.bool_contents(), out);
  } else if (type == "FP32") {
    Append<double>(contents.fp32_contents(), out);
  } else if (type == "FP64") {
    Append<double>(contents.fp64_contents(), out);
  } else if (type == "INT64") {
    Append<int64_t>(contents.int64_contents(), out);
  } else if (type == "UINT64") {
    Append<uint64_t>(contents.uint64_contents(), out);
  } else if (type.starts_with("UINT")) {
    Append<uint64_t>(contents.uint_contents(), out);
  } else {
    Append<int64_t>(contents.int_contents(), out);
  }
  if (std::ssize(*out) == count) return absl::OkStatus();
  return InvalidArgument(input.name(), "{} elements in the contents for {}, the shape needs {}",
                         out->size(), type, count);
}

absl::StatusOr<int64_t> CountElements(const std::string& name, const std::vector<int64_t>& shape) {
  if (shape.size() > kMaxRank) return InvalidArgument(name, "at most {} dimensions", kMaxRank);
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0 || size > kMaxElements || count * size > kMaxElements) {
      return InvalidArgument(name, "a shape must have at most {} elements and no negative size",
                             kMaxElements);
    }
    count *= size;
  }
  return count;
}

absl::StatusOr<InferTensor> ReadInput(const inference::ModelInferRequest& request, int index) {
  const auto& input = request.inputs(index);
  if (input.name().size() > kMaxNameBytes) {
    return InvalidArgument("inputs", "a name has more than {} bytes", kMaxNameBytes);
  }
  InferTensor tensor;
  tensor.name = input.name();
  tensor.shape.assign(input.shape().begin(), input.shape().end());
  if (input.datatype() != "BYTES" && ElementSize(input.datatype()) == 0) {
    return InvalidArgument(tensor.name, "the datatype '{}' is not supported",
                           SafeUtf8(input.datatype(), 40));
  }
  ASSIGN_OR_RETURN(const int64_t count, CountElements(tensor.name, tensor.shape));
  if (request.raw_input_contents().empty()) {
    RETURN_IF_ERROR(ReadContents(input, count, &tensor.values));
  } else if (input.has_contents()) {
    return InvalidArgument(tensor.name, "has contents, but the request has raw_input_contents");
  } else {
    RETURN_IF_ERROR(ReadRaw(tensor.name, input.datatype(), request.raw_input_contents(index), count,
                            &tensor.values));
  }
  return tensor;
}

}  // namespace

absl::StatusOr<std::vector<InferTensor>> ReadInputs(const inference::ModelInferRequest& request) {
  if (request.inputs_size() > kMaxTensors) {
    return InvalidArgument("inputs", "at most {} tensors, got {}", kMaxTensors,
                           request.inputs_size());
  }
  const int raw = request.raw_input_contents_size();
  if (raw != 0 && raw != request.inputs_size()) {
    return InvalidArgument("raw_input_contents", "{} entries for {} inputs", raw,
                           request.inputs_size());
  }
  std::vector<InferTensor> tensors;
  for (int i = 0; i < request.inputs_size(); ++i) {
    ASSIGN_OR_RETURN(InferTensor tensor, ReadInput(request, i));
    for (const InferTensor& other : tensors) {
      if (other.name == tensor.name) return InvalidArgument(tensor.name, "occurs twice");
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

void AppendRawBytes(const std::string& text, std::string* out) {
  const auto length = static_cast<uint32_t>(text.size());
  for (int shift = 0; shift < 32; shift += 8) {
    *out += static_cast<char>(length >> shift & 0xff);
  }
  *out += text;
}

}  // namespace hgrn2
