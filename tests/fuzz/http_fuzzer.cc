// Requests over HTTP: bytes -> parser (in pieces that the first byte chooses) -> JSON -> bodies ->
// validated engine requests, and every refusal through the error mapping.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/status.h"
#include "engine/frontend/validate.h"
#include "server/http/request_parser.h"
#include "server/openai/api_error.h"
#include "server/openai/completion_body.h"
#include "server/openai/responses_body.h"
#include "server/openai/tokenize_body.h"
#include "server/utf8.h"
#include "tests/frontend/byte_tokenizer.h"

namespace {

using hgrn2::HttpRequestParser;
using State = HttpRequestParser::State;

constexpr hgrn2::HttpParserLimits kLimits{2048, 1 << 16};

const hgrn2::ChatTemplates& Chat() {
  static const auto chat = [] {
    auto loaded = hgrn2::ChatTemplates::Load("/nonexistent");
    HGRN2_CHECK(loaded.ok());
    return *std::move(loaded);
  }();
  return *chat;
}

hgrn2::ValidationContext Context() {
  static const hgrn2::ModelConfig config = [] {
    hgrn2::ModelConfig c;
    c.vocab_size = hgrn2::testing::ByteTokenizer::kEnd + 1;
    c.bos_token_id = 1;
    c.eos_token_ids = {hgrn2::testing::ByteTokenizer::kEnd};
    return c;
  }();
  static const hgrn2::GenerationDefaults defaults;
  static const hgrn2::testing::ByteTokenizer tokenizer;
  return {&config, &defaults, &tokenizer, 4096};
}

void CheckRefusal(const absl::Status& status) {
  HGRN2_CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  const hgrn2::HttpResponse response = hgrn2::ToHttpError(status);
  HGRN2_CHECK(response.status == 400);
  HGRN2_CHECK(hgrn2::IsUtf8(response.body));
  const auto error = nlohmann::json::parse(response.body, nullptr, false);
  HGRN2_CHECK(error.is_object() && !error["error"]["message"].get<std::string>().empty());
}

void CheckRequest(const hgrn2::CompletionRequest& request) {
  const auto engine = hgrn2::ToEngineRequests(Context(), request, 7);
  if (!engine.ok()) return CheckRefusal(engine.status());
  HGRN2_CHECK(engine->size() == request.prompts.size());
  for (const hgrn2::EngineRequest& one : *engine) {
    HGRN2_CHECK(!one.prompt.empty() && one.max_tokens >= 1 && one.num_choices >= 1);
  }
}

void FuzzBody(const std::string& path, const std::string& body) {
  const auto json = hgrn2::ParseRequestBody(body);
  if (!json.ok()) return CheckRefusal(json.status());
  if (path.starts_with("/v1/chat")) {
    auto chat = hgrn2::ParseChatBody(*json, Chat());
    if (!chat.ok()) return CheckRefusal(chat.status());
    const auto status = hgrn2::RenderPrompt(Chat(), chat->conversation, &*chat);
    if (!status.ok()) return CheckRefusal(status);
    CheckRequest(chat->request);
  } else if (path.starts_with("/v1/responses")) {
    const auto responses = hgrn2::ParseResponsesBody(*json);
    if (!responses.ok()) CheckRefusal(responses.status());
  } else if (path.starts_with("/tokenize")) {
    const auto tokenize = hgrn2::ParseTokenizeBody(*json);
    if (!tokenize.ok()) CheckRefusal(tokenize.status());
  } else {
    const auto completion = hgrn2::ParseCompletionBody(*json);
    if (!completion.ok()) return CheckRefusal(completion.status());
    CheckRequest(completion->request);
  }
}

// Requests of `bytes`, fed `piece` at a time, as text: for comparing what pieces make of them.
std::string Parse(std::string_view bytes, size_t piece, bool with_bodies) {
  std::string seen;
  std::string input;
  HttpRequestParser parser(kLimits);
  int requests = 0;
  for (size_t at = 0; at < bytes.size() && requests < 8; at += piece) {
    input += bytes.substr(at, piece);
    // A connection feeds a new parser with what the last one left.
    while (requests < 8) {
      const size_t used = parser.Feed(input);
      HGRN2_CHECK(used <= input.size());
      input.erase(0, used);
      if (parser.state() == State::kFailed) {
        HGRN2_CHECK(parser.error_status() >= 400 && !parser.error().empty());
        return seen + std::to_string(parser.error_status());
      }
      if (parser.state() != State::kComplete) break;
      const hgrn2::HttpRequest& request = parser.request();
      HGRN2_CHECK(request.body.size() <= kLimits.max_body_bytes);
      HGRN2_CHECK(!request.path.empty());
      seen += request.method + " " + request.path + " " + request.body + "\n";
      if (with_bodies) FuzzBody(request.path, request.body);
      ++requests;
      std::destroy_at(&parser);
      std::construct_at(&parser, kLimits);
      if (input.empty()) break;
    }
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = 1 + data[0] % 64;
  const std::string whole = Parse(bytes, bytes.size() + 1, true);
  const std::string pieces = Parse(bytes, piece, false);
  // An answer may come sooner when the bytes come slowly, but never a different request.
  HGRN2_CHECK(whole.starts_with(pieces.substr(0, pieces.rfind('\n') + 1)) ||
              pieces.starts_with(whole.substr(0, whole.rfind('\n') + 1)));
  return 0;
}
