#include "base/host.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace hgrn2 {
namespace {

TEST(HostTest, UsableCpusAndMemory) {
  EXPECT_GE(NumUsableCpus(), 1);
  EXPECT_LE(NumUsableCpus(), static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_GT(AvailableMemory(), 1 << 20);
}

TEST(HostTest, AThreadsAffinityLimitsItsCpus) {
  std::thread([] {
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &set)) ++cpu;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
    EXPECT_EQ(NumUsableCpus(), 1);
  }).join();
}

}  // namespace
}  // namespace hgrn2
