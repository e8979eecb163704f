#include "server/kserve/infer_request.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "server/kserve/infer_parameters.h"
#include "server/kserve/tensor.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

constexpr char kVersion[] = "1";

absl::StatusOr<InferValue> FromProto(const std::string& name,
                                     const inference::InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case inference::InferParameter::kBoolParam:
      return InferValue(parameter.bool_param());
    case inference::InferParameter::kInt64Param:
      return InferValue(int64_t{parameter.int64_param()});
    case inference::InferParameter::kStringParam:
      return InferValue(parameter.string_param());
    case inference::InferParameter::kDoubleParam:
      return InferValue(parameter.double_param());
    case inference::InferParameter::kUint64Param:
      return InferValue(uint64_t{parameter.uint64_param()});
    case inference::InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return InvalidArgument(SafeUtf8(name, 128), "has no value");
}

// [batch] or [batch, 1], or [] for one text.
absl::Status ReadPrompts(const InferTensor& tensor, InferRequest* out) {
  const bool column = tensor.shape.size() == 2 && tensor.shape[1] == 1;
  if (tensor.shape.size() > 1 && !column) {
    return InvalidArgument(tensor.name, "the shape must be [batch] or [batch, 1]");
  }
  if (tensor.values.empty()) return InvalidArgument(tensor.name, "must have at least one element");
  out->shape.batch = static_cast<int32_t>(tensor.values.size());
  out->shape.column = column;
  for (size_t i = 0; i < tensor.values.size(); ++i) {
    const auto* text = std::get_if<std::string>(&tensor.values[i]);
    if (text == nullptr) return InvalidArgument(tensor.name, "the datatype must be BYTES");
    if (!IsUtf8(*text)) return InvalidArgument(tensor.name, "element {} is not valid UTF-8", i);
    out->completion.prompts.emplace_back(*text);
  }
  return absl::OkStatus();
}

bool IsRepeated(const std::vector<InferValue>& values) {
  return std::all_of(values.begin(), values.end(),
                     [&](const InferValue& value) { return value == values[0]; });
}

// A tensor other than text_input: a parameter for the whole batch.
absl::Status ReadParameterTensor(InferTensor tensor, int32_t batch, InferParameters* parameters) {
  if (tensor.values.empty()) return absl::OkStatus();
  if (tensor.name == "sampling_parameters") {
    const auto* json = std::get_if<std::string>(&tensor.values[0]);
    if (json == nullptr || tensor.values.size() != 1) {
      return InvalidArgument(tensor.name, "must be one element of BYTES");
    }
    return AddJsonParameters(tensor.name, *json, parameters);
  }
  // One value for each prompt, all the same.
  if (tensor.name != "stop" && std::ssize(tensor.values) == batch && batch > 1) {
    if (!IsRepeated(tensor.values)) {
      return InvalidArgument(tensor.name, "must be the same for the whole batch");
    }
    tensor.values.resize(1);
  }
  if (!parameters->emplace(tensor.name, std::move(tensor.values)).second) {
    return InvalidArgument(tensor.name, "is given twice");
  }
  return absl::OkStatus();
}

absl::Status ReadOutputs(const inference::ModelInferRequest& request, InferShape* shape) {
  if (request.outputs().empty()) return absl::OkStatus();
  shape->text_output = shape->finish_reason = false;
  for (const auto& output : request.outputs()) {
    if (output.name() == "text_output") {
      shape->text_output = true;
    } else if (output.name() == "finish_reason") {
      shape->finish_reason = true;
    } else {
      return InvalidArgument("outputs",
                             "there is no output '{}', only text_output and finish_reason",
                             SafeUtf8(output.name(), 128));
    }
  }
  return absl::OkStatus();
}

// Ids go to logs and trailers.
absl::Status CheckId(const std::string& id) {
  constexpr size_t kMaxBytes = 256;
  if (id.size() > kMaxBytes)
    return InvalidArgument("id", "at most {} bytes, got {}", kMaxBytes, id.size());
  const bool control = std::any_of(id.begin(), id.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (control) return InvalidArgument("id", "must not contain control characters");
  return absl::OkStatus();
}

void AddOutput(const InferShape& shape, const char* name, std::vector<std::string> texts,
               inference::ModelInferResponse* out) {
  auto* const output = out->add_outputs();
  output->set_name(name);
  output->set_datatype("BYTES");
  output->add_shape(shape.batch);
  if (shape.column) output->add_shape(1);
  std::string* const raw = shape.raw ? out->add_raw_output_contents() : nullptr;
  for (std::string& text : texts) {
    if (raw != nullptr) {
      AppendRawBytes(text, raw);
    } else {
      output->mutable_contents()->add_bytes_contents(std::move(text));
    }
  }
}

}  // namespace

absl::StatusOr<InferRequest> ToNative(const inference::ModelInferRequest& request) {
  InferRequest out;
  if (!request.model_version().empty() && request.model_version() != kVersion) {
    return MakeStatus(absl::StatusCode::kNotFound, "model_version: there is only version {}",
                      kVersion);
  }
  RETURN_IF_ERROR(CheckId(request.id()));
  out.shape.id = request.id();
  out.shape.model_name = request.model_name();
  out.shape.model_version = kVersion;
  out.shape.raw = request.raw_input_contents_size() > 0;
  out.completion.model = request.model_name();
  out.completion.request_id = request.id();
  RETURN_IF_ERROR(ReadOutputs(request, &out.shape));
  ASSIGN_OR_RETURN(std::vector<InferTensor> tensors, ReadInputs(request));
  InferParameters parameters;
  for (const auto& [name, parameter] : request.parameters()) {
    ASSIGN_OR_RETURN(InferValue value, FromProto(name, parameter));
    parameters[name].push_back(std::move(value));
  }
  const auto text = std::find_if(tensors.begin(), tensors.end(), [](const InferTensor& tensor) {
    return tensor.name == "text_input";
  });
  if (text == tensors.end()) return InvalidArgument("text_input", "this input is missing");
  RETURN_IF_ERROR(ReadPrompts(*text, &out));
  tensors.erase(text);
  for (InferTensor& tensor : tensors) {
    RETURN_IF_ERROR(ReadParameterTensor(std::move(tensor), out.shape.batch, &parameters));
  }
  RETURN_IF_ERROR(ApplyParameters(parameters, &out));
  return out;
}

void ToProto(const InferShape& shape, std::vector<InferResult> results,
             inference::ModelInferResponse* out) {
  out->set_id(shape.id);
  out->set_model_name(shape.model_name);
  out->set_model_version(shape.model_version);
  std::vector<std::string> texts;
  std::vector<std::string> reasons;
  for (InferResult& result : results) {
    texts.push_back(std::move(result.text));
    reasons.push_back(std::move(result.finish_reason));
  }
  if (shape.text_output) AddOutput(shape, "text_output", std::move(texts), out);
  if (shape.finish_reason) AddOutput(shape, "finish_reason", std::move(reasons), out);
}

void SetFinalResponse(bool final, inference::ModelInferResponse* out) {
  (*out->mutable_parameters())["triton_final_response"].set_bool_param(final);
}

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      break;
  }
  return "abort";
}

const std::vector<TensorInfo>& InputTensors() {
  static const auto* const tensors = new std::vector<TensorInfo>{
      {"text_input", "BYTES", inference::TYPE_STRING, false},
      {"stream", "BOOL", inference::TYPE_BOOL, true},
      {"max_tokens", "INT32", inference::TYPE_INT32, true},
      {"min_tokens", "INT32", inference::TYPE_INT32, true},
      {"temperature", "FP32", inference::TYPE_FP32, true},
      {"top_p", "FP32", inference::TYPE_FP32, true},
      {"top_k", "INT32", inference::TYPE_INT32, true},
      {"min_p", "FP32", inference::TYPE_FP32, true},
      {"presence_penalty", "FP32", inference::TYPE_FP32, true},
      {"frequency_penalty", "FP32", inference::TYPE_FP32, true},
      {"repetition_penalty", "FP32", inference::TYPE_FP32, true},
      {"seed", "UINT64", inference::TYPE_UINT64, true},
      {"stop", "BYTES", inference::TYPE_STRING, true},
      {"ignore_eos", "BOOL", inference::TYPE_BOOL, true},
      {"echo", "BOOL", inference::TYPE_BOOL, true},
      {"exclude_input_in_output", "BOOL", inference::TYPE_BOOL, true},
      {"sampling_parameters", "BYTES", inference::TYPE_STRING, true},
  };
  return *tensors;
}

const std::vector<TensorInfo>& OutputTensors() {
  static const auto* const tensors = new std::vector<TensorInfo>{
      {"text_output", "BYTES", inference::TYPE_STRING, false},
      {"finish_reason", "BYTES", inference::TYPE_STRING, false},
  };
  return *tensors;
}

}  // namespace hgrn2
