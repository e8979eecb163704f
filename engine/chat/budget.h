// What one rendering may still spend.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "base/status.h"
#include "engine/chat/chat_template.h"

namespace hgrn2::chat {

class Budget {
 public:
  explicit Budget(const ChatTemplateOptions& options) : options_(options) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  const ChatTemplateOptions& options() const { return options_; }

  // One node, and everything that was made since the last one.
  absl::Status Step() {
    if (++steps_ > options_.max_steps) {
      return absl::InvalidArgumentError("the template runs longer than it may (max_steps)");
    }
    return CheckRoom(0);
  }
  // Handling `bytes` costs time, too.
  void Work(int64_t bytes) { steps_ += bytes / 64; }
  // Before something is made whose size is a product of other sizes.
  absl::Status CheckRoom(int64_t bytes) const {
    if (bytes > options_.max_memory_bytes - held_) {
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        "the template's values take more than {} bytes (max_memory_bytes)",
                        options_.max_memory_bytes);
    }
    return absl::OkStatus();
  }
  void Hold(int64_t bytes) {
    held_ += bytes;
    Work(bytes);
  }
  void Release(int64_t bytes) { held_ -= bytes; }

 private:
  const ChatTemplateOptions& options_;
  int64_t steps_ = 0;
  int64_t held_ = 0;
};

inline int64_t Take(Budget* budget, int64_t bytes) {
  if (budget == nullptr) return 0;
  budget->Hold(bytes);
  return bytes;
}
inline void Give(Budget* budget, int64_t bytes) {
  if (budget != nullptr) budget->Release(bytes);
}

}  // namespace hgrn2::chat
