// Any bytes as a ModelInferRequest: refused, or a request with as many prompts as the batch.
#include <kserve/open_inference.pb.h>

#include <cstdint>
#include <cstdlib>

#include "server/kserve/infer_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  inference::ModelInferRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto native = hgrn2::ToNative(request);
  if (!native.ok()) return 0;
  if (native->completion.prompts.size() != static_cast<size_t>(native->shape.batch)) std::abort();
  inference::ModelInferResponse response;
  std::vector<hgrn2::InferResult> results(native->shape.batch, {"text", "stop"});
  hgrn2::ToProto(native->shape, std::move(results), &response);
  if (response.outputs_size() > 2) std::abort();
  return 0;
}
