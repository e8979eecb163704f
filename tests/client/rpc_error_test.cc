#include "client/rpc_error.h"

#include <gtest/gtest.h>

#include "tests/client/scripted_server.h"

namespace hgrn2::client {
namespace {

TEST(RpcError, NamesFieldViolationsAndRetryDelay) {
  const grpc::Status status =
      DetailedStatus(grpc::StatusCode::INVALID_ARGUMENT, "must be in [0, 100]", "temperature", 1.5);
  EXPECT_EQ(DescribeError(status),
            "INVALID_ARGUMENT: must be in [0, 100]\n  field temperature: must be in [0, 100]\n"
            "  retry after 1.5 s");
  EXPECT_DOUBLE_EQ(RetryDelay(status).value(), 1.5);
}

TEST(RpcError, SurvivesDetailsThatAreNotGoogleRpc) {
  const grpc::Status status(grpc::StatusCode::INTERNAL, "boom", "\xff\xff not a protobuf");
  EXPECT_EQ(DescribeError(status), "INTERNAL: boom");
  EXPECT_FALSE(RetryDelay(status).has_value());
}

TEST(RpcError, NamesUnknownCodes) {
  EXPECT_EQ(CodeName(grpc::StatusCode::UNAUTHENTICATED), "UNAUTHENTICATED");
  EXPECT_EQ(CodeName(static_cast<grpc::StatusCode>(77)), "CODE_77");
}

}  // namespace
}  // namespace hgrn2::client
