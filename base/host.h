// What this process may use of the machine.
#pragma once

#include <cstdint>

namespace hgrn2 {

// CPUs of the affinity mask, limited by the cgroup's quota (v1 and v2). At least 1.
int NumUsableCpus();

// Bytes this process may still allocate: the machine's available memory or what the cgroup leaves,
// whichever is less. 0 if unknown.
int64_t AvailableMemory();

}  // namespace hgrn2
