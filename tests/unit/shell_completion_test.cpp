#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shell/completion.h"

namespace einhorn::shell {
namespace {

using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr const char* kHelp =
    "You are speaking to the Einhorn command socket. You can run the following commands:\n"
    "\n"
    "state: Get a dump\n"
    "signal: Send signals (args: SIG1 [SIG2 ...])\n"
    "upgrade: Upgrade smoothly. It says: hello\n"
    "upgrade_fleet: Upgrade a fleet at a time\n"
    "worker:ack: For workers\n"
    "upgrade: again\n"
    "\x1b[31m: not a name\n"
    "die: Stop";

const CommandCatalog& catalog() {
  static const CommandCatalog kCatalog = CommandCatalog::from_help(kHelp);
  return kCatalog;
}

TEST(CommandCatalog, ReadsTheMastersHelp) {
  EXPECT_THAT(catalog().names(), ElementsAre("die", "exit", "history", "quit", "signal", "state",
                                             "upgrade", "upgrade_fleet", "worker:ack"));
}

TEST(CommandCatalog, KnowsTheShellsOwnCommandsWithoutAMaster) {
  EXPECT_THAT(CommandCatalog().names(), ElementsAre("exit", "history", "quit"));
  EXPECT_THAT(CommandCatalog::from_help("").names(), ElementsAre("exit", "history", "quit"));
}

TEST(Complete, OffersCommandsForTheFirstWord) {
  Completion found = complete("st", catalog());
  EXPECT_THAT(found.candidates, ElementsAre("state"));
  EXPECT_EQ(found.common, "state");
  EXPECT_EQ(found.replaced, 2U);

  found = complete("up", catalog());
  EXPECT_THAT(found.candidates, ElementsAre("upgrade", "upgrade_fleet"));
  EXPECT_EQ(found.common, "upgrade");

  EXPECT_EQ(complete("", catalog()).candidates, catalog().names());
  EXPECT_THAT(complete("nothing", catalog()).candidates, IsEmpty());
}

TEST(Complete, StartsAnewBehindASemicolon) {
  EXPECT_THAT(complete("state;up", catalog()).candidates, ElementsAre("upgrade", "upgrade_fleet"));
  EXPECT_THAT(complete("signal USR1 ; \tdi", catalog()).candidates, ElementsAre("die"));
  EXPECT_EQ(complete("signal USR1 ; \tdi", catalog()).replaced, 2U);
}

TEST(Complete, OffersSignals) {
  EXPECT_THAT(complete("signal US", catalog()).candidates, ElementsAre("USR1", "USR2"));
  EXPECT_EQ(complete("signal us", catalog()).common, "USR");
  EXPECT_THAT(complete("signal USR1 SIGQ", catalog()).candidates, ElementsAre("SIGQUIT"));
  EXPECT_THAT(complete("signal SIG", catalog()).candidates, Each(StartsWith("SIG")));
  EXPECT_EQ(complete("signal si", catalog()).common, "SIG");
  const Completion all = complete("die ", catalog());
  EXPECT_EQ(all.replaced, 0U);
  EXPECT_THAT(all.candidates, Contains("TERM"));
  EXPECT_THAT(all.candidates, Not(Contains("SIGTERM")));
  EXPECT_THAT(complete("die USR2 ", catalog()).candidates, IsEmpty());
}

TEST(Complete, OffersWhatStateTakes) {
  EXPECT_THAT(complete("history ", catalog()).candidates,
              ElementsAre("crashes", "events", "upgrades"));
  EXPECT_THAT(complete("history crashes --s", catalog()).candidates, ElementsAre("--since"));
  EXPECT_THAT(complete("state ", catalog()).candidates, ElementsAre("json"));
  EXPECT_THAT(complete("state j", catalog()).candidates, ElementsAre("json"));
  EXPECT_THAT(complete("state x", catalog()).candidates, IsEmpty());
  EXPECT_THAT(complete("state json ", catalog()).candidates, IsEmpty());
}

TEST(Complete, OffersWhatAnUpgradeTakes) {
  for (const char* line : {"upgrade ", "upgrade_fleet ", "upgrade --", "upgrade_fleet --no-r"}) {
    EXPECT_THAT(complete(line, catalog()).candidates, ElementsAre("--no-rollback")) << line;
  }
  EXPECT_EQ(complete("upgrade --n", catalog()).replaced, 3U);
  EXPECT_THAT(complete("upgrade --no-rollback ", catalog()).candidates, IsEmpty());
  EXPECT_THAT(complete("rollback ", catalog()).candidates, IsEmpty());
}

TEST(Complete, OffersNothingForArgumentsItDoesNotKnow) {
  EXPECT_THAT(complete("help ", catalog()).candidates, IsEmpty());
  EXPECT_THAT(complete("bogus x", catalog()).candidates, IsEmpty());
}

}  // namespace
}  // namespace einhorn::shell
