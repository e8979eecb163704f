// Turns a failed call into text for people: code, message and the google.rpc details.
#pragma once

#include <grpcpp/support/status.h>

#include <optional>
#include <string>
#include <string_view>

namespace hgrn2::client {

// "INVALID_ARGUMENT"; "CODE_99" for one gRPC does not define.
std::string CodeName(grpc::StatusCode code);

// Several lines without a trailing newline:
//   INVALID_ARGUMENT: temperature: must be in [0, 100], got -1
//     field temperature: must be in [0, 100], got -1
//     retry after 0.5 s
std::string DescribeError(const grpc::Status& status);

// RetryInfo's delay in seconds, if the server sent one.
std::optional<double> RetryDelay(const grpc::Status& status);

// The status a subcommand ends with: 0, or 1 after printing the error (with what was attempted) to
// stderr.
int ReportStatus(const grpc::Status& status, std::string_view what);

}  // namespace hgrn2::client
