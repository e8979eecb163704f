// Protocol messages to native structs and back. Conversion checks only what the native structs
// cannot express; ranges are the frontend's.
#pragma once

#include <hgrn2/v1/inference.pb.h>

#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/backend/backend.h"
#include "engine/frontend/frontend.h"

namespace hgrn2 {

// Consume the message: texts are moved. `deadline` and an empty request_id are the caller's.
absl::StatusOr<CompletionRequest> ToNative(v1::GenerateRequest&& request);
absl::StatusOr<ScoreInput> ToNative(v1::ScoreRequest&& request);

// Appends to `out`: texts are concatenated, so that one message stands for any number of deltas.
void AppendTo(ChoiceDelta&& delta, v1::ChoiceDelta* out);
// The size that AppendTo adds, to within a factor of two; cheap.
int64_t ApproximateBytes(const ChoiceDelta& delta);
void ToProto(const Usage& usage, v1::Usage* out);
void ToProto(const Timing& timing, v1::Timing* out);
void ToProto(ContinuationResult&& result, v1::ContinuationScore* out);

// What GetModel answers with.
v1::GetModelResponse DescribeModel(const ModelConfig& config, const std::string& model_hash,
                                   const BackendInfo& backend, const EngineOptions& limits,
                                   const Frontend& frontend);

}  // namespace hgrn2
