// What configuration and privileges leave in the snapshot comes back, field by field.
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/snapshot.h"

namespace einhorn::wire {
namespace {

using ::testing::ElementsAre;

Snapshot there_and_back(const Snapshot& snapshot) {
  Result<Snapshot> read =
      decode_snapshot(std::string(kJournalStart, '\0') + encode_journal(snapshot));
  EXPECT_TRUE(read && read->damage.empty());
  return read ? *read : Snapshot{};
}

TEST(SnapshotOfConfig, SettingsComeBack) {
  Snapshot whole;
  whole.settings.variables = {"A=1", "B="};
  whole.settings.arguments = {"--config", "x.yaml"};
  whole.settings.worker_binds = {"127.0.0.1:9293+index"};
  whole.settings.pending_config = true;
  whole.settings.configured = pool::Config{.number = 7};
  whole.settings.configured_verbosity = 2;
  const Settings read = there_and_back(whole).settings;
  EXPECT_THAT(read.variables, ElementsAre("A=1", "B="));
  EXPECT_THAT(read.arguments, ElementsAre("--config", "x.yaml"));
  EXPECT_THAT(read.worker_binds, ElementsAre("127.0.0.1:9293+index"));
  EXPECT_TRUE(read.pending_config);
  ASSERT_TRUE(read.configured);
  EXPECT_EQ(read.configured->number, 7U);
  EXPECT_EQ(read.configured_verbosity, 2);
}

TEST(SnapshotOfConfig, PrivilegesComeBack) {
  Snapshot whole;
  Privileges& said = whole.settings.privileges;
  said = {.uid = 1,
          .gid = 2,
          .groups = std::vector<std::uint32_t>{3, 4},
          .user_name = "www",
          .user_home = "/srv",
          .umask = 5,
          .root = "/jail",
          .no_new_privs = true,
          .capabilities = 6,
          .oom_score_adj = -7,
          .io_priority = 8,
          .cpu_sets = {"0", "1-3"},
          .master_uid = 9,
          .master_gid = 10,
          .master_groups = {11},
          .master_capabilities = 12};
  const Privileges read = there_and_back(whole).settings.privileges;
  EXPECT_EQ(read.uid, 1U);
  EXPECT_EQ(read.gid, 2U);
  ASSERT_TRUE(read.groups);
  EXPECT_THAT(*read.groups, ElementsAre(3U, 4U));
  EXPECT_EQ(read.user_name, "www");
  EXPECT_EQ(read.user_home, "/srv");
  EXPECT_EQ(read.umask, 5U);
  EXPECT_EQ(read.root, "/jail");
  EXPECT_TRUE(read.no_new_privs);
  EXPECT_EQ(read.capabilities, 6U);
  EXPECT_EQ(read.oom_score_adj, -7);
  EXPECT_EQ(read.io_priority, 8);
  EXPECT_THAT(read.cpu_sets, ElementsAre("0", "1-3"));
  EXPECT_EQ(read.master_uid, 9U);
  EXPECT_EQ(read.master_gid, 10U);
  EXPECT_THAT(read.master_groups, ElementsAre(11U));
  EXPECT_EQ(read.master_capabilities, 12U);
}

TEST(SnapshotOfConfig, NoGroupsAreNotNothingSaidOfGroups) {
  const auto whole = std::make_unique<Snapshot>();
  whole->settings.privileges.groups.emplace();
  EXPECT_TRUE(there_and_back(*whole).settings.privileges.groups);
  EXPECT_FALSE(there_and_back({}).settings.privileges.groups);
}

TEST(SnapshotOfConfig, ListenersComeBack) {
  Snapshot whole;
  ListenerRecord& listener = whole.listeners[3];
  listener.index = 3;
  listener.since = Version{4};
  listener.until = Version{5};
  listener.tentative = true;
  const Snapshot read = there_and_back(whole);
  ASSERT_EQ(read.listeners.count(3), 1U);
  EXPECT_EQ(read.listeners.at(3).since, Version{4});
  EXPECT_EQ(read.listeners.at(3).until, Version{5});
  EXPECT_TRUE(read.listeners.at(3).tentative);
}

}  // namespace
}  // namespace einhorn::wire
