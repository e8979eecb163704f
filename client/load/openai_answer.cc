#include "client/load/openai_answer.h"

#include <algorithm>
#include <utility>

#include "client/load/json_scanner.h"

namespace hgrn2::client {
namespace {

class MessageReader {
 public:
  MessageReader(std::string_view json, OpenAiMessage* message) : in_(json), m_(message) {}

  bool Read() {
    const bool ok = in_.Object([this](std::string_view name) {
      if (name == "choices") return in_.Array([this] { return Choice(); });
      if (name == "usage" && in_.Peek() == '{') return Usage();
      if (name == "timing" && in_.Peek() == '{') return Timing();
      if (name == "error" && in_.Peek() != 'n') return Error();
      return in_.Skip();
    });
    return ok && in_.AtEnd();
  }

 private:
  bool Choice() {
    m_->has_choice = true;
    return in_.Object([this](std::string_view name) {
      if (name == "text") return Text();
      if (name == "delta" || name == "message") return Delta();
      if (name == "token_ids" && in_.Peek() == '[') return TokenIds();
      if (name == "finish_reason") return FinishReason();
      return in_.Skip();
    });
  }

  // Reasoning is output too: its tokens take their time.
  bool Delta() {
    return in_.Object([this](std::string_view name) {
      if (name == "content" || name == "reasoning_content" || name == "reasoning") return Text();
      return in_.Skip();
    });
  }

  bool Text() {
    if (in_.Peek() != '"') return in_.Skip();
    std::string_view text;
    if (!in_.String(&text)) return false;
    m_->has_text |= !text.empty();
    return true;
  }

  bool FinishReason() {
    if (in_.Peek() != '"') return in_.Skip();
    std::string_view reason;
    if (!in_.String(&reason)) return false;
    m_->finished = true;
    m_->aborted = reason == "abort";
    return true;
  }

  bool TokenIds() {
    return in_.Array([this] {
      int64_t id = 0;
      if (!in_.Integer(&id)) return false;
      m_->token_ids.push_back(static_cast<int32_t>(id));
      return true;
    });
  }

  bool Count(int* count) {
    int64_t value = 0;
    if (in_.Peek() == 'n') return in_.Skip();
    if (!in_.Integer(&value) || value < 0 || value > INT32_MAX) return false;
    *count = static_cast<int>(value);
    return true;
  }

  bool Usage() {
    return in_.Object([this](std::string_view name) {
      if (name == "prompt_tokens") return Count(&m_->prompt_tokens);
      if (name == "completion_tokens") return Count(&m_->completion_tokens);
      if (name != "prompt_tokens_details" || in_.Peek() != '{') return in_.Skip();
      return in_.Object([this](std::string_view detail) {
        return detail == "cached_tokens" ? Count(&m_->cached_tokens) : in_.Skip();
      });
    });
  }

  bool Timing() {
    return in_.Object([this](std::string_view name) {
      if (name == "queue") return in_.Number(&m_->queue_s);
      if (name == "prefill") return in_.Number(&m_->prefill_s);
      if (name == "decode") return in_.Number(&m_->decode_s);
      return in_.Skip();
    });
  }

  bool Error() {
    m_->is_error = true;
    std::string_view text;
    if (in_.Peek() == '"') {
      if (!in_.String(&text)) return false;
      m_->error = JsonUnescape(text);
      return true;
    }
    return in_.Object([&](std::string_view name) {
      if (name == "message" && in_.Peek() == '"') {
        if (!in_.String(&text)) return false;
        m_->error = JsonUnescape(text);
        return true;
      }
      const char next = in_.Peek();
      if (name == "code" && next >= '0' && next <= '9') return Count(&m_->error_code);
      return in_.Skip();
    });
  }

  JsonScanner in_;
  OpenAiMessage* const m_;
};

}  // namespace

bool ParseOpenAiMessage(std::string_view json, OpenAiMessage* message) {
  std::vector<int32_t> token_ids = std::move(message->token_ids);  // keeps its capacity
  token_ids.clear();
  *message = OpenAiMessage();
  message->token_ids = std::move(token_ids);
  return MessageReader(json, message).Read();
}

AnswerPart OpenAiAnswer::Add(const OpenAiMessage& m) {
  AnswerPart part;
  if (!m.token_ids.empty()) {
    part.tokens = static_cast<int>(m.token_ids.size());
    part.token_ids = m.token_ids;
  } else if (m.has_choice && m.completion_tokens >= 0) {
    part.tokens = std::max(0, m.completion_tokens - counted_);
  } else if (m.has_text) {
    part.tokens = 1;
  }
  counted_ += part.tokens;
  if (m.completion_tokens >= 0) part.total_tokens = counted_ = m.completion_tokens;
  finished_ |= m.finished;
  part.aborted = m.aborted;
  part.prompt_tokens = m.prompt_tokens;
  part.cached_tokens = m.cached_tokens;
  part.queue_s = m.queue_s;
  part.prefill_s = m.prefill_s;
  part.decode_s = m.decode_s;
  return part;
}

}  // namespace hgrn2::client
