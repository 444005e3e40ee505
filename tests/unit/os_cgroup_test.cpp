#include <map>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "os/cgroup.h"

namespace einhorn::os {
namespace {

constexpr const char* kVersion1 =
    "30 22 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "34 30 0:31 /docker/x /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory\n"
    "40 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
constexpr const char* kOwn1 =
    "4:memory:/docker/x/inner\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/slice/unit\n";

ReadFile files(std::map<std::string, std::string> all) {
  return [all = std::move(all)](const std::string& path) {
    const auto found = all.find(path);
    return found != all.end() ? std::optional(found->second) : std::nullopt;
  };
}

TEST(Cgroup, ControllersAreFoundWhereverTheyAre) {
  const auto found = find_controllers(
      {"memory", "cpu", "pids"}, kVersion1, kOwn1,
      files({{"/sys/fs/cgroup/unified/slice/unit/cgroup.controllers", "cpuset pids\n"}}));
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].version, 1);
  EXPECT_EQ(found[0].directory, "/sys/fs/cgroup/my memory/inner");
  EXPECT_EQ(found[1].version, 1);
  EXPECT_EQ(found[1].directory, "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(found[2].version, 2);
  EXPECT_EQ(found[2].directory, "/sys/fs/cgroup/unified/slice/unit");
}

TEST(Cgroup, WhatIsNotThereIsSaid) {
  for (const auto& [mounts, own] :
       {std::pair(std::string(kVersion1), std::string(kOwn1)),
        std::pair(std::string(), std::string()),
        std::pair(std::string("nonsense\n - \n"), std::string("nonsense\n::\n"))}) {
    const auto found = find_controllers({"pids"}, mounts, own, files({}));
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].version, 0);
    EXPECT_NE(found[0].problem, "");
  }
}

TEST(Cgroup, LimitsOfBothVersions) {
  const CgroupLimits limits{300 << 20, 150, 20};
  const auto text = [&](const char* name, int version) {
    std::string out;
    for (const auto& [file, value] : limit_files({name, version, "", ""}, limits)) {
      out += file + "=" + value + ";";
    }
    return out;
  };
  EXPECT_EQ(text("memory", 1), "memory.limit_in_bytes=314572800;");
  EXPECT_EQ(text("memory", 2), "memory.max=314572800;memory.oom.group=1;");
  EXPECT_EQ(text("cpu", 1), "cpu.cfs_period_us=100000;cpu.cfs_quota_us=150000;");
  EXPECT_EQ(text("cpu", 2), "cpu.max=150000 100000;");
  EXPECT_EQ(text("pids", 1) + text("pids", 2), "pids.max=20;pids.max=20;");
  EXPECT_TRUE(limit_files({"memory", 2, "", ""}, {}).empty());
}

TEST(Cgroup, KillsAreCounted) {
  EXPECT_EQ(parse_oom_kills("low 0\nhigh 0\nmax 3\noom 2\noom_kill 5\noom_group_kill 0\n"), 5U);
  EXPECT_EQ(parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), 7U);
  EXPECT_EQ(parse_oom_kills("oom_kill_disable 0\nunder_oom 0\n"), std::nullopt);
  EXPECT_EQ(parse_oom_kills(""), std::nullopt);
}

}  // namespace
}  // namespace einhorn::os
