#include "server/openai/response_store.h"

#include <utility>

namespace hgrn2 {
namespace {

// What the values take, nearly.
int64_t MemoryOf(const Json& value) {
  int64_t bytes = sizeof(Json);
  if (value.is_string()) bytes += static_cast<int64_t>(value.get_ref<const std::string&>().size());
  if (value.is_array()) {
    for (const Json& item : value) bytes += MemoryOf(item);
  }
  if (value.is_object()) {
    for (const auto& [key, item] : value.get_ref<const Json::object_t&>()) {
      bytes += static_cast<int64_t>(sizeof(std::string) + key.size()) + MemoryOf(item);
    }
  }
  return bytes;
}

}  // namespace

void ResponseStore::Put(const std::string& id, StoredResponse response) {
  const int64_t bytes = MemoryOf(response.messages) + std::ssize(response.body) +
                        2 * std::ssize(id) + static_cast<int64_t>(sizeof(Entry));
  auto shared = std::make_shared<const StoredResponse>(std::move(response));
  MutexLock lock(&mu_);
  if (const auto old = by_id_.find(id); old != by_id_.end()) Erase(old->second);
  if (bytes > max_bytes_) return;
  while (bytes_ + bytes > max_bytes_) Erase(std::prev(entries_.end()));
  entries_.push_front({id, std::move(shared), bytes});
  by_id_[id] = entries_.begin();
  bytes_ += bytes;
}

std::shared_ptr<const StoredResponse> ResponseStore::Get(const std::string& id) {
  MutexLock lock(&mu_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->response;
}

bool ResponseStore::Delete(const std::string& id) {
  MutexLock lock(&mu_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return false;
  Erase(found->second);
  return true;
}

void ResponseStore::Erase(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  by_id_.erase(entry->id);
  entries_.erase(entry);
}

}  // namespace hgrn2
