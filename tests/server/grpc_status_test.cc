#include "server/grpc_status.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(details.message(), status.error_message());
  return details;
}

TEST(GrpcStatusTest, CodesAreTheSame) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_EQ(ToGrpcStatus(absl::NotFoundError("x")).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ToGrpcStatus(absl::CancelledError("x")).error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(ToGrpcStatus(absl::UnauthenticatedError("x")).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(CodeName(absl::StatusCode::kDeadlineExceeded), "DEADLINE_EXCEEDED");
  EXPECT_EQ(CodeName(static_cast<absl::StatusCode>(99)), "UNKNOWN");
}

TEST(GrpcStatusTest, BadRequestNamesThePathOfTheField) {
  for (const auto& [field, path] :
       {std::pair{"temperature", "sampling.temperature"}, std::pair{"prompts[3]", "prompts[3]"},
        std::pair{"prompt", "prompts[0]"}, std::pair{"request_id", "request_id"}}) {
    const grpc::Status status = ToGrpcStatus(InvalidArgument(field, "must be {}", 1));
    const google::rpc::Status details = Details(status);
    ASSERT_EQ(details.details_size(), 1);
    google::rpc::BadRequest bad_request;
    ASSERT_TRUE(details.details(0).UnpackTo(&bad_request));
    ASSERT_EQ(bad_request.field_violations_size(), 1);
    EXPECT_EQ(bad_request.field_violations(0).field(), path);
    EXPECT_EQ(bad_request.field_violations(0).description(), status.error_message());
  }
}

TEST(GrpcStatusTest, RetryInfoForWhatIsWorthATry) {
  for (const absl::Status& status :
       {absl::ResourceExhaustedError("queue full"), absl::UnavailableError("draining")}) {
    const google::rpc::Status details = Details(ToGrpcStatus(status));
    ASSERT_EQ(details.details_size(), 1);
    google::rpc::RetryInfo retry;
    ASSERT_TRUE(details.details(0).UnpackTo(&retry));
    EXPECT_EQ(retry.retry_delay().seconds() * 1000 + retry.retry_delay().nanos() / 1000000,
              kRetryDelay.count());
    EXPECT_EQ(Details(ToGrpcStatus(NoRetry(status))).details_size(), 0);
  }
  EXPECT_EQ(Details(ToGrpcStatus(absl::InternalError("bug"))).details_size(), 0);
}

TEST(GrpcStatusTest, MessagesAreCutAndCleaned) {
  const grpc::Status status =
      ToGrpcStatus(absl::InternalError(std::string("\xff") + std::string(5000, 'a')));
  EXPECT_EQ(status.error_message().size(), 1024u);
  EXPECT_EQ(status.error_message()[0], '?');
  Details(status);
}

TEST(Utf8Test, SafeUtf8) {
  EXPECT_EQ(SafeUtf8("plain", 100), "plain");
  EXPECT_EQ(SafeUtf8("h\xc3\xa9llo", 2), "h");  // never half a character
  EXPECT_EQ(SafeUtf8("\xf0\x9f\x98\x80", 4), "\xf0\x9f\x98\x80");
  EXPECT_EQ(SafeUtf8("\xc3", 9), "?");
  EXPECT_EQ(SafeUtf8("\xc0\xaf", 9), "??");            // overlong
  EXPECT_EQ(SafeUtf8("\xed\xa0\x80", 9), "???");       // surrogate
  EXPECT_EQ(SafeUtf8("\xf4\x90\x80\x80", 9), "????");  // above U+10FFFF
  EXPECT_EQ(SafeUtf8(std::string_view("a\0b", 3), 9), std::string("a\0b", 3));
}

TEST(Utf8Test, LogValuesCannotLookLikeFields) {
  EXPECT_EQ(LogValue("req-1_a.b:c/d@e+f"), "req-1_a.b:c/d@e+f");
  EXPECT_EQ(LogValue(""), "\"\"");
  EXPECT_EQ(LogValue("a status=OK"), "\"a status=OK\"");
  EXPECT_EQ(LogValue("a\" status=\"OK\\"), "\"a\\\" status=\\\"OK\\\\\"");
  EXPECT_EQ(LogValue("two\nlines"), "\"two?lines\"");
  EXPECT_EQ(LogValue(std::string(1000, 'a')).size(), 302u);
}

}  // namespace
}  // namespace hgrn2
