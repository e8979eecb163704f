#include "server/grpc_status.h"

#include <google/protobuf/any.pb.h>
#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <hgrn2/v1/inference.pb.h>

#include <iterator>
#include <string>

#include "base/status.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

constexpr size_t kMaxMessageBytes = 1024;
constexpr const char kNoRetryPayload[] = "hgrn2/no-retry";

// Where a field of the transport-free API is in GenerateRequest.
std::string FieldPath(const std::string& field) {
  if (v1::SamplingParams::descriptor()->FindFieldByName(field) != nullptr) {
    return "sampling." + field;
  }
  return field == "prompt" ? "prompts[0]" : SafeUtf8(field, kMaxMessageBytes);
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = SafeUtf8(ToStd(status.message()), kMaxMessageBytes);
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);
  if (status.code() == absl::StatusCode::kInvalidArgument && !FieldOf(status).empty()) {
    google::rpc::BadRequest bad_request;
    auto* const violation = bad_request.add_field_violations();
    violation->set_field(FieldPath(FieldOf(status)));
    violation->set_description(message);
    details.add_details()->PackFrom(bad_request);
  }
  if (!status.GetPayload(kNoRetryPayload).has_value() &&
      (status.code() == absl::StatusCode::kResourceExhausted ||
       status.code() == absl::StatusCode::kUnavailable)) {
    google::rpc::RetryInfo retry_info;
    retry_info.mutable_retry_delay()->set_seconds(kRetryDelay.count() / 1000);
    retry_info.mutable_retry_delay()->set_nanos(
        static_cast<int32_t>(kRetryDelay.count() % 1000 * 1000000));
    details.add_details()->PackFrom(retry_info);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      details.SerializeAsString());
}

absl::Status NoRetry(absl::Status status) {
  status.SetPayload(kNoRetryPayload, absl::Cord());
  return status;
}

std::string_view CodeName(absl::StatusCode code) {
  static constexpr std::string_view kNames[] = {"OK",
                                                "CANCELLED",
                                                "UNKNOWN",
                                                "INVALID_ARGUMENT",
                                                "DEADLINE_EXCEEDED",
                                                "NOT_FOUND",
                                                "ALREADY_EXISTS",
                                                "PERMISSION_DENIED",
                                                "RESOURCE_EXHAUSTED",
                                                "FAILED_PRECONDITION",
                                                "ABORTED",
                                                "OUT_OF_RANGE",
                                                "UNIMPLEMENTED",
                                                "INTERNAL",
                                                "UNAVAILABLE",
                                                "DATA_LOSS",
                                                "UNAUTHENTICATED"};
  const auto index = static_cast<size_t>(code);
  return index < std::size(kNames) ? kNames[index] : "UNKNOWN";
}

}  // namespace hgrn2
