#include "base/host.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

namespace hgrn2 {
namespace {

// The number at the start of a file, or -1 ("max", missing file).
double ReadNumber(const std::string& path) {
  std::ifstream file(path);
  double value = -1;
  return file >> value ? value : -1;
}

// CPUs' worth of time the cgroup grants, or infinity.
double CgroupCpuQuota() {
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2) {
    std::string quota;
    double period = 0;
    if (v2 >> quota >> period && quota != "max" && period > 0) {
      return std::strtod(quota.c_str(), nullptr) / period;
    }
  }
  const double quota = ReadNumber("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  const double period = ReadNumber("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  return quota > 0 && period > 0 ? quota / period : std::numeric_limits<double>::infinity();
}

double CgroupMemoryLeft() {
  const double v2 = ReadNumber("/sys/fs/cgroup/memory.max");
  if (v2 > 0) return v2 - ReadNumber("/sys/fs/cgroup/memory.current");
  const double v1 = ReadNumber("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  if (v1 > 0) return v1 - ReadNumber("/sys/fs/cgroup/memory/memory.usage_in_bytes");
  return std::numeric_limits<double>::infinity();
}

}  // namespace

int NumUsableCpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
#ifdef CPU_COUNT
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = CPU_COUNT(&set);
#endif
  const double quota = std::ceil(CgroupCpuQuota());
  return std::max(1, quota < cpus ? static_cast<int>(quota) : cpus);
}

int64_t AvailableMemory() {
  std::ifstream meminfo("/proc/meminfo");
  double available = 0;
  for (std::string line; std::getline(meminfo, line);) {
    if (line.rfind("MemAvailable:", 0) == 0)
      available = std::strtod(line.c_str() + 13, nullptr) * 1024;
  }
  if (available <= 0) return 0;
  return static_cast<int64_t>(std::max(0.0, std::min(available, CgroupMemoryLeft())));
}

}  // namespace hgrn2
