#include "server/request_id.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <random>

namespace hgrn2 {

std::string MakeRequestId() {
  static const uint64_t process_id = [] {
    std::random_device device;
    return static_cast<uint64_t>(device()) << 32 | device();
  }();
  static std::atomic<uint64_t> counter{0};
  // splitmix64: consecutive ids look nothing alike, and none repeats within a process.
  uint64_t x = process_id + 0x9e3779b97f4a7c15ull * counter.fetch_add(1, std::memory_order_relaxed);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return fmt::format("{:016x}", x ^ (x >> 31));
}

}  // namespace hgrn2
