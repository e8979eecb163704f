// Owner of a device's long-lived allocations: everything is taken at start and freed together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hgrn2 {

// Thread-compatible. Memory belongs to the device that was current at its allocation.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // At least 256-byte aligned; never null (an empty request gets a few bytes). `what` is for
  // errors.
  absl::StatusOr<void*> Allocate(size_t bytes, const char* what);
  // Pinned host memory that kernels can write to through the returned pointer.
  absl::StatusOr<void*> AllocateHost(size_t bytes, const char* what);

  template <typename T>
  absl::Status Take(T** out, size_t count, const char* what) {
    absl::StatusOr<void*> memory = Allocate(count * sizeof(T), what);
    if (memory.ok()) *out = static_cast<T*>(*memory);
    return memory.status();
  }
  int64_t device_bytes() const { return device_bytes_; }

 private:
  std::vector<void*> device_;
  std::vector<void*> host_;
  int64_t device_bytes_ = 0;
};

}  // namespace hgrn2
