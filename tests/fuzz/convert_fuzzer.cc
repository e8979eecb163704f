// Requests from the wire: bytes -> protobuf -> native -> validated engine requests, and every
// refusal through the status mapping. The first byte chooses the message.
#include <google/rpc/status.pb.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/status.h"
#include "engine/frontend/validate.h"
#include "server/convert.h"
#include "server/grpc_status.h"
#include "tests/frontend/byte_tokenizer.h"

namespace {

using hgrn2::EngineRequest;

const hgrn2::ModelConfig& Config() {
  static const hgrn2::ModelConfig config = [] {
    hgrn2::ModelConfig c;
    c.vocab_size = hgrn2::testing::ByteTokenizer::kEnd + 1;
    c.bos_token_id = 1;
    c.eos_token_ids = {hgrn2::testing::ByteTokenizer::kEnd};
    return c;
  }();
  return config;
}

hgrn2::ValidationContext Context(bool with_tokenizer) {
  static const hgrn2::GenerationDefaults defaults;
  static const hgrn2::testing::ByteTokenizer tokenizer;
  return {&Config(), &defaults, with_tokenizer ? &tokenizer : nullptr, 4096};
}

void CheckIds(const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) HGRN2_CHECK(id >= 0 && id < Config().vocab_size);
}

// What the engine takes on trust.
void CheckEngineRequest(const EngineRequest& r) {
  HGRN2_CHECK(!r.prompt.empty() && r.prompt.size() <= 4096);
  CheckIds(r.prompt);
  CheckIds(r.allowed_token_ids);
  CheckIds(r.stop_token_ids);
  for (const auto& word : r.bad_words) {
    HGRN2_CHECK(!word.empty());
    CheckIds(word);
  }
  for (const auto& [id, bias] : r.logit_bias) {
    CheckIds({id});
    HGRN2_CHECK(std::abs(bias) <= 100);
  }
  HGRN2_CHECK(r.num_choices >= 1 && r.num_choices <= 128 && r.max_tokens >= 1);
  HGRN2_CHECK(r.min_tokens <= static_cast<uint32_t>(r.max_tokens));
  const hgrn2::SamplingScalars& s = r.sampling;
  HGRN2_CHECK(s.temperature >= 0 && s.temperature <= 100 && s.top_p > 0 && s.top_p <= 1);
  HGRN2_CHECK(s.min_p >= 0 && s.min_p <= 1 && s.repetition_penalty > 0);
  HGRN2_CHECK(std::abs(s.presence_penalty) <= 2 && std::abs(s.frequency_penalty) <= 2);
  HGRN2_CHECK(s.logprobs >= -1 && s.logprobs <= 20 && r.prompt_logprobs <= 20);
  HGRN2_CHECK(r.score_top_n >= 0 && r.score_top_n <= 20);
  for (const auto& continuation : r.continuations) {
    HGRN2_CHECK(!continuation.empty());
    CheckIds(continuation);
  }
}

void CheckRefusal(const absl::Status& status) {
  HGRN2_CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  HGRN2_CHECK(!hgrn2::FieldOf(status).empty());
  const grpc::Status out = hgrn2::ToGrpcStatus(status);
  HGRN2_CHECK(out.error_message().size() <= 1024);
  google::rpc::Status details;
  HGRN2_CHECK(details.ParseFromString(out.error_details()) && details.details_size() == 1);
}

void FuzzGenerate(const uint8_t* data, size_t size, bool with_tokenizer) {
  hgrn2::v1::GenerateRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return;
  const auto native = hgrn2::ToNative(std::move(message));
  if (!native.ok()) return CheckRefusal(native.status());
  const auto requests = hgrn2::ToEngineRequests(Context(with_tokenizer), *native, 7);
  if (!requests.ok()) return CheckRefusal(requests.status());
  HGRN2_CHECK(requests->size() == native->prompts.size());
  for (const EngineRequest& request : *requests) CheckEngineRequest(request);
}

void FuzzScore(const uint8_t* data, size_t size, bool with_tokenizer) {
  hgrn2::v1::ScoreRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return;
  const auto native = hgrn2::ToNative(std::move(message));
  if (!native.ok()) return CheckRefusal(native.status());
  const auto request = hgrn2::ToEngineRequest(Context(with_tokenizer), *native);
  if (!request.ok()) return CheckRefusal(request.status());
  HGRN2_CHECK(request->continuations.size() == native->continuations.size());
  CheckEngineRequest(*request);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const bool with_tokenizer = (data[0] & 2) == 0;
  if (data[0] & 1) {
    FuzzScore(data + 1, size - 1, with_tokenizer);
  } else {
    FuzzGenerate(data + 1, size - 1, with_tokenizer);
  }
  return 0;
}
