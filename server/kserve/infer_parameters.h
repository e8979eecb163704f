// Parameters of an inference request by name, from wherever the client put them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/kserve/infer_request.h"
#include "server/kserve/tensor.h"

namespace hgrn2 {

// Several values only for "stop".
using InferParameters = std::map<std::string, std::vector<InferValue>>;

// INVALID_ARGUMENT names the parameter: unknown, of the wrong type, or not a number.
absl::Status ApplyParameters(const InferParameters& parameters, InferRequest* out);

// The members of a JSON object (Triton's vLLM backend calls its tensor sampling_parameters).
absl::Status AddJsonParameters(const std::string& name, const std::string& json,
                               InferParameters* out);

}  // namespace hgrn2
