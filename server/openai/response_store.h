// Responses of /v1/responses kept for previous_response_id and GET. In memory and of this process:
// where conversations outlive a process, sessions will take its place.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/mutex.h"
#include "server/openai/json_input.h"

namespace hgrn2 {

struct StoredResponse {
  Json messages;     // the conversation, the answer included, without instructions
  std::string body;  // of the answer to GET
};

// Thread-safe.
class ResponseStore {
 public:
  // 0: keeps nothing.
  explicit ResponseStore(int64_t max_bytes) : max_bytes_(max_bytes) {}

  bool enabled() const { return max_bytes_ > 0; }
  // Drops the least recently used until it fits; a response larger than everything is not kept.
  void Put(const std::string& id, StoredResponse response);
  // Null if it is not (or no longer) there.
  std::shared_ptr<const StoredResponse> Get(const std::string& id);
  bool Delete(const std::string& id);

 private:
  struct Entry {
    std::string id;
    std::shared_ptr<const StoredResponse> response;
    int64_t bytes;
  };
  using Entries = std::list<Entry>;

  void Erase(Entries::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int64_t max_bytes_;
  Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);  // the most recently used first
  std::unordered_map<std::string, Entries::iterator> by_id_ ABSL_GUARDED_BY(mu_);
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hgrn2
