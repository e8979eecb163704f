// Fixed-size, 64-byte-aligned, zero-initialised arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace hgrn2::cpu {

// `bytes` of zeroed memory aligned to 64 bytes, on transparent huge pages when large: a step
// streams all weights, and 4 KiB pages would miss the TLB on each. Null when the system has no
// more.
void* AllocateAligned(size_t bytes);
void FreeAligned(void* p, size_t bytes);

// Owns `size` zeroed elements of a trivial type. Throws std::bad_alloc like a vector.
template <typename T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size);
  AlignedBuffer(AlignedBuffer&& o) noexcept : data_(o.data_), size_(o.size_) { o.Clear(); }
  AlignedBuffer& operator=(AlignedBuffer&& o) noexcept {
    if (this == &o) return *this;
    FreeAligned(data_, size_ * sizeof(T));
    data_ = o.data_;
    size_ = o.size_;
    o.Clear();
    return *this;
  }
  ~AlignedBuffer() { FreeAligned(data_, size_ * sizeof(T)); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  void Clear() {
    data_ = nullptr;
    size_ = 0;
  }

  T* data_ = nullptr;
  size_t size_ = 0;
};

[[noreturn]] void ThrowBadAlloc();

template <typename T>
AlignedBuffer<T>::AlignedBuffer(size_t size) : size_(size) {
  if (size == 0) return;
  data_ = static_cast<T*>(AllocateAligned(size * sizeof(T)));
  if (data_ == nullptr) ThrowBadAlloc();
}

}  // namespace hgrn2::cpu
