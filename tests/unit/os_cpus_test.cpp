// CPU quotas of cgroups, of both versions, from folders that look like /proc and /sys.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "os/cpus.h"

namespace einhorn::os {
namespace {

class Cpus : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "cpusXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  std::string root_;
};

TEST_F(Cpus, NothingThereIsNoQuota) { EXPECT_EQ(cgroup_cpus(root_), std::nullopt); }

TEST_F(Cpus, VersionTwo) {
  write("/proc/self/cgroup", "0::/shop.slice/web\n");
  write("/sys/fs/cgroup/shop.slice/web/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_cpus(root_), std::nullopt);
  write("/sys/fs/cgroup/shop.slice/web/cpu.max", "250000 100000\n");
  EXPECT_EQ(cgroup_cpus(root_), 2.5);
  // The one around it counts too.
  write("/sys/fs/cgroup/shop.slice/cpu.max", "150000 100000\n");
  EXPECT_EQ(cgroup_cpus(root_), 1.5);
}

TEST_F(Cpus, VersionTwoInAContainerWithTheHostsPath) {
  write("/proc/self/cgroup", "0::/docker/0123\n");
  write("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_EQ(cgroup_cpus(root_), 0.5);
}

TEST_F(Cpus, VersionOne) {
  write("/proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/web\n0::/\n");
  write("/sys/fs/cgroup/cpu,cpuacct/web/cpu.cfs_quota_us", "-1\n");
  write("/sys/fs/cgroup/cpu,cpuacct/web/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpus(root_), std::nullopt);
  write("/sys/fs/cgroup/cpu,cpuacct/web/cpu.cfs_quota_us", "300000\n");
  EXPECT_EQ(cgroup_cpus(root_), 3.0);
}

TEST_F(Cpus, NonsenseIsNoQuota) {
  write("/proc/self/cgroup", "0::/web\n:\n::\n7\n0::/../up\n");
  for (const char* text : {"", "x y", "100000", "0 100000", "100000 0", "1e400 1", "-5 100000"}) {
    write("/sys/fs/cgroup/web/cpu.max", text);
    EXPECT_EQ(cgroup_cpus(root_), std::nullopt) << text;
  }
}

TEST_F(Cpus, ThereIsAtLeastOne) { EXPECT_GE(usable_cpus(), 1U); }

}  // namespace
}  // namespace einhorn::os
