// Version 2 groups in a tree of plain files that looks like one: where controllers are found, given
// on, limited and counted. What only the kernel does (it makes a group's files, and refuses what is
// busy) is stood in for by files that are there before, or are missing.
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "os/cgroup.h"

namespace einhorn::os {
namespace {

namespace fs = std::filesystem;

std::string mounted(const std::string& point) {
  return "40 30 0:37 / " + point + " rw - cgroup2 cgroup2 rw\n";
}

class CgroupTree : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "cgroup-tree-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  // A group with the files that the kernel would make in it.
  std::string group(const std::string& path, const std::vector<std::string>& files) {
    std::string directory = root_ + path;
    fs::create_directories(directory);
    for (const std::string& file : files) {
      std::ofstream(directory + "/" + file).flush();
    }
    return directory;
  }
  static std::optional<std::string> read(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return file ? std::optional(text.str()) : std::nullopt;
  }

  std::string root_;
};

TEST_F(CgroupTree, WhatTheGroupThatWeAreInGivesOn) {
  const std::string own = group("/system.slice/shop.service", {});
  std::ofstream(own + "/cgroup.controllers") << "cpu memory\n";
  const auto found = find_controllers({"memory", "cpu", "pids"}, mounted(root_),
                                      "0::/system.slice/shop.service\n", read);
  ASSERT_EQ(found.size(), 3U);
  for (const std::size_t there : {std::size_t{0}, std::size_t{1}}) {
    EXPECT_EQ(found[there].version, 2);
    EXPECT_EQ(found[there].directory, own);
    EXPECT_EQ(found[there].problem, "");
  }
  EXPECT_EQ(found[2].version, 0);
  EXPECT_EQ(found[2].problem, "this kernel offers no such controller");
}

TEST_F(CgroupTree, ControllersAreGivenOnToTheGroupsBeneath) {
  const std::string own = group("/own", {"cgroup.subtree_control"});
  ASSERT_TRUE(delegate_cgroup(own, own + "/main", {"memory", "pids"}).has_value());
  EXPECT_EQ(read(own + "/cgroup.subtree_control"), "+memory +pids");
  EXPECT_FALSE(fs::exists(own + "/main")) << "nobody has to move where nobody is in the way";
}

TEST_F(CgroupTree, WhoIsInTheWayMovesFirst) {
  const std::string own = group("/own", {});
  fs::create_directory(own + "/cgroup.subtree_control");  // can't be written, as if it were busy
  const std::string main = group("/own/main", {"cgroup.procs"});
  const Status given = delegate_cgroup(own, main, {"memory"});
  EXPECT_EQ(read(main + "/cgroup.procs"), "0") << "this process";
  ASSERT_FALSE(given.has_value());
  EXPECT_EQ(given.error().operation, "write +memory to " + own + "/cgroup.subtree_control");
}

TEST_F(CgroupTree, AWorkersLimitsInOneGroup) {
  const std::string pool = group("/pool", {});
  const std::string worker = group(
      "/pool/7", {"memory.max", "memory.oom.group", "cpu.max", "pids.max", "memory.swap.max"});
  const CgroupLimits limits{300 << 20, 50, 20};
  CgroupFiles files;
  for (const char* name : {"memory", "cpu", "pids"}) {
    const CgroupFiles more = limit_files({name, 2, pool, ""}, limits);
    files.insert(files.end(), more.begin(), more.end());
  }
  ASSERT_TRUE(make_cgroup(worker, files).has_value());
  EXPECT_EQ(read(worker + "/memory.max"), "314572800");
  EXPECT_EQ(read(worker + "/memory.oom.group"), "1");
  EXPECT_EQ(read(worker + "/cpu.max"), "50000 100000");
  EXPECT_EQ(read(worker + "/pids.max"), "20");
  EXPECT_EQ(read(worker + "/memory.swap.max"), "");
}

TEST_F(CgroupTree, AGroupThatCanNotBeLimitedIsNotLeftBehind) {
  const std::string pool = group("/pool", {});
  const Status made = make_cgroup(pool + "/7", {{"memory.max", "1"}});
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().operation, "write 1 to " + pool + "/7/memory.max");
  EXPECT_TRUE(list_cgroups(pool).empty());
}

TEST_F(CgroupTree, GroupsGoWhenNobodyIsInThem) {
  const std::string pool = group("/pool", {"cgroup.procs"});
  ASSERT_TRUE(make_cgroup(pool + "/7", {}).has_value());
  group("/pool/8/beneath", {});
  std::vector<std::string> names = list_cgroups(pool);
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"7", "8"}));
  EXPECT_TRUE(remove_cgroup(pool + "/7"));
  EXPECT_TRUE(remove_cgroup(pool + "/7")) << "it is gone";
  EXPECT_FALSE(remove_cgroup(pool + "/8")) << "somebody is in it";
}

TEST_F(CgroupTree, KillsForWantOfMemory) {
  const std::string worker = group("/pool/7", {"memory.events"});
  EXPECT_EQ(oom_kills(worker), std::nullopt);
  std::ofstream(worker + "/memory.events") << "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\n";
  EXPECT_EQ(oom_kills(worker), 2U);
  EXPECT_EQ(oom_kills(root_ + "/gone"), std::nullopt);
}

}  // namespace
}  // namespace einhorn::os
