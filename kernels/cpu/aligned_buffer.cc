#include "kernels/cpu/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace hgrn2::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t Rounded(size_t bytes, size_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Straight from the system: zeroed page by page when first touched, aligned to huge pages.
void* MapAligned(size_t bytes) {
  const size_t size = Rounded(bytes, kHugePage);
  void* mapped =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<uint8_t*>(mapped);
  auto* const p =
      reinterpret_cast<uint8_t*>(Rounded(reinterpret_cast<uintptr_t>(begin), kHugePage));
  const size_t before = static_cast<size_t>(p - begin);
  if (before > 0) munmap(begin, before);
  if (before < kHugePage) munmap(p + size, kHugePage - before);
#ifdef MADV_HUGEPAGE
  madvise(p, size, MADV_HUGEPAGE);
#endif
  return p;
}

}  // namespace

void* AllocateAligned(size_t bytes) {
  if (bytes >= kHugePage) return MapAligned(bytes);
  void* p = std::aligned_alloc(64, Rounded(bytes, 64));
  if (p != nullptr) std::memset(p, 0, bytes);
  return p;
}

void FreeAligned(void* p, size_t bytes) {
  if (p == nullptr) return;
  if (bytes >= kHugePage) {
    munmap(p, Rounded(bytes, kHugePage));
  } else {
    std::free(p);
  }
}

void ThrowBadAlloc() { throw std::bad_alloc(); }

}  // namespace hgrn2::cpu
