#include "client/rpc_error.h"

#include <fmt/format.h>
#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>

#include <cstdio>
#include <iterator>

namespace hgrn2::client {
namespace {

constexpr const char* kCodeNames[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) details.Clear();
  return details;
}

double Seconds(const google::protobuf::Duration& d) { return d.seconds() + d.nanos() * 1e-9; }

}  // namespace

std::string CodeName(grpc::StatusCode code) {
  const auto i = static_cast<size_t>(code);
  return i < std::size(kCodeNames) ? kCodeNames[i] : fmt::format("CODE_{}", static_cast<int>(code));
}

std::string DescribeError(const grpc::Status& status) {
  std::string text = fmt::format("{}: {}", CodeName(status.error_code()), status.error_message());
  const google::rpc::Status details = Details(status);
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        text += fmt::format("\n  field {}: {}", violation.field(), violation.description());
      }
    } else if (any.UnpackTo(&retry)) {
      text += fmt::format("\n  retry after {:g} s", Seconds(retry.retry_delay()));
    } else {
      text += fmt::format("\n  detail {}", any.type_url());
    }
  }
  return text;
}

std::optional<double> RetryDelay(const grpc::Status& status) {
  const google::rpc::Status details = Details(status);
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&retry)) return Seconds(retry.retry_delay());
  }
  return std::nullopt;
}

int ReportStatus(const grpc::Status& status, std::string_view what) {
  if (status.ok()) return 0;
  fmt::print(stderr, "hgrn2-client: {}: {}\n", what, DescribeError(status));
  return 1;
}

}  // namespace hgrn2::client
