// ModelInferRequest to native requests, and results to ModelInferResponse. docs/kserve.md describes
// the tensors and parameters.
#pragma once

#include <kserve/open_inference.pb.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/frontend/frontend.h"

namespace hgrn2 {

// What the answer must look like.
struct InferShape {
  std::string id;
  std::string model_name;
  std::string model_version;
  int32_t batch = 1;
  bool column = false;  // the input's shape was [batch, 1]
  bool raw = false;     // as the request: bytes in raw_output_contents
  bool text_output = true;
  bool finish_reason = true;
};

struct InferRequest {
  CompletionRequest completion;  // deadline and an empty request_id are the caller's
  InferShape shape;
  std::optional<bool> stream;
  std::optional<int64_t> timeout_us;
};

// INVALID_ARGUMENT names the tensor or parameter; NOT_FOUND for another version than 1.
absl::StatusOr<InferRequest> ToNative(const inference::ModelInferRequest& request);

// One prompt's part of a response.
struct InferResult {
  std::string text;
  std::string finish_reason;  // "" while it goes on
};
// `results` has one entry for each prompt of the batch.
void ToProto(const InferShape& shape, std::vector<InferResult> results,
             inference::ModelInferResponse* out);
void SetFinalResponse(bool final, inference::ModelInferResponse* out);

// "stop", "length", "abort".
const char* FinishReasonName(FinishReason reason);

// The tensors, for metadata.
struct TensorInfo {
  const char* name;
  const char* datatype;  // "BYTES"
  inference::DataType type;
  bool optional;
};
const std::vector<TensorInfo>& InputTensors();
const std::vector<TensorInfo>& OutputTensors();

}  // namespace hgrn2
