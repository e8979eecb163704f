// absl::Status to grpc::Status, with google.rpc.Status details in grpc-status-details-bin.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <string_view>

#include "absl/status/status.h"

namespace hgrn2 {

// What a client is told to wait before it tries again (queue full, draining).
inline constexpr std::chrono::milliseconds kRetryDelay{1000};

// INVALID_ARGUMENT carries BadRequest with the field of FieldOf; RESOURCE_EXHAUSTED and UNAVAILABLE
// carry RetryInfo. Messages are cut to 1024 bytes of valid UTF-8: they travel as HTTP/2 trailers,
// which clients limit to 8 KiB.
grpc::Status ToGrpcStatus(const absl::Status& status);
// Marks a status whose cause a retry would only meet again: it gets no RetryInfo.
absl::Status NoRetry(absl::Status status);

// "RESOURCE_EXHAUSTED", for logs and metrics.
std::string_view CodeName(absl::StatusCode code);

}  // namespace hgrn2
