// Fewer workers, stopping, leaving: how workers and pools end.
#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Epochs = std::vector<std::uint64_t>;

TEST(PoolNumber, MoreStartsMore) {
  Driver driver(manual(2));
  driver.start();
  driver.ack_all();
  driver.take();
  driver.happen(event::SetNumber{4});
  EXPECT_THAT(driver.take(), ElementsAre("number 2->4", "spawn 3@2 v0", "spawn 4@3 v0",
                                         "launched 3@2 v0", "launched 4@3 v0"));
  EXPECT_EQ(driver.pool().config().number, 4u);
}

TEST(PoolNumber, FewerStopsTheUnreadyFirstThenTheOldest) {
  Driver driver(manual(5));
  driver.start();
  driver.ack(2);
  driver.ack(1);
  driver.ack(5);
  driver.take();
  driver.happen(event::SetNumber{2});
  EXPECT_THAT(driver.take(),
              ElementsAre("number 5->2", "culling 3 excess", "signaling USR2 [3@2 4@3 1@0]",
                          "USR2 -> 3@2", "USR2 -> 4@3", "USR2 -> 1@0"));
  EXPECT_EQ(driver.in(WorkerState::kReady), (Epochs{2, 5}));
  driver.exit(3, exited(0));
  driver.exit(4, killed(SIGUSR2));
  driver.exit(1, exited(0));
  EXPECT_THAT(driver.take(), ElementsAre("exited 3@2 before ACK stopping",
                                         "exited 4@3 before ACK stopping", "exited 1@0 stopping"));
  EXPECT_EQ(driver.pool().ledger().deaths, 0u) << "who was told to go did not die";
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 0u);
}

TEST(PoolNumber, WhoIsBeingSpawnedIsStoppedOnceItRuns) {
  Driver driver(manual(2));
  driver.hold_spawns = true;
  driver.start();
  driver.take();
  driver.happen(event::SetNumber{1});
  EXPECT_TRUE(driver.find(1)->stop_wanted);
  driver.release_spawns();
  EXPECT_EQ(driver.in(WorkerState::kStopping), Epochs{1});
  EXPECT_EQ(driver.in(WorkerState::kStarting), Epochs{2});
  EXPECT_THAT(driver.take("USR2"), ElementsAre("USR2 -> 1@0"));
}

TEST(PoolStop, WhoIsBeingSpawnedGetsTheSignalThatWasAskedForOnceItRuns) {
  for (const bool restored : {false, true}) {
    Driver driver(manual(2));
    driver.hold_spawns = true;
    driver.start();
    driver.happen(event::Stop{SIGTERM, false});
    driver.take();
    if (restored) {
      driver.restore();
    }
    driver.release_spawns();
    EXPECT_THAT(driver.take_acts(), ElementsAre("TERM -> 1@0", "TERM -> 2@1"));
  }
}

TEST(PoolNumber, ResetsTheBackOff) {
  Driver driver(manual(1));
  driver.start();
  driver.exit(1, exited(1));
  EXPECT_GT(*driver.until_deadline(), seconds{1});
  driver.take();
  driver.happen(event::SetNumber{2});
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 0u);
  EXPECT_THAT(driver.take("spawn "), ElementsAre("spawn 2@0 v0", "spawn 3@1 v0"));
}

TEST(PoolSignalTimeout, KillsTheWholeGroupOnce) {
  Config config = manual(2);
  config.signal_timeout = seconds{7};
  config.stop_signal = SIGTERM;
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.happen(event::SetNumber{1});
  driver.take();
  EXPECT_EQ(driver.until_deadline(), seconds{7});
  driver.advance(milliseconds{6999});
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.advance(milliseconds{1});
  EXPECT_THAT(driver.take(), ElementsAre("killing 1@0 after 7s", "KILL => 1@0"));
  EXPECT_EQ(driver.find(1)->signaled.numbers(), (std::vector<int>{SIGKILL, SIGTERM}));
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt) << "there is nothing more to do to it";
}

TEST(PoolSignalTimeout, MayComeLater) {
  Driver driver(manual(2));
  driver.start();
  driver.ack_all();
  driver.happen(event::SetNumber{1});
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
  driver.advance(seconds{100});
  driver.take();
  Config config = driver.pool().config();
  config.signal_timeout = seconds{30};
  driver.happen(event::Reconfigured{config});
  EXPECT_THAT(driver.take(), ElementsAre("killing 1@0 after 100s", "KILL => 1@0"));
}

TEST(PoolDrainTimeout, IsForOldVersionsOnly) {
  Config config = manual(2);
  config.drain_timeout = seconds{20};
  config.canary = 0;
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.happen(event::SetNumber{1});  // 1 stops, of the target version
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
  driver.exit(1);
  driver.happen(event::Upgrade{});
  driver.ack(3);
  EXPECT_EQ(driver.in(WorkerState::kStopping), Epochs{2});
  driver.take();
  EXPECT_EQ(driver.until_deadline(), seconds{20});
  driver.run_to_deadline();
  EXPECT_THAT(driver.take(), ElementsAre("killing 2@1 after 20s", "KILL => 2@1"));
}

TEST(PoolDrainTimeout, TheShorterOfBothCounts) {
  for (const int signal_timeout : {5, 50}) {
    Config config = manual(1);
    config.drain_timeout = seconds{20};
    config.signal_timeout = seconds{signal_timeout};
    Driver driver(config);
    driver.start();
    driver.ack(1);
    driver.happen(event::Upgrade{});
    driver.ack(2);
    EXPECT_EQ(driver.until_deadline(), seconds{std::min(20, signal_timeout)});
  }
}

TEST(PoolDrainTimeout, CountsForWhoeverBecomesOldWhileStopping) {
  Config config = manual(2);
  config.drain_timeout = seconds{20};
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.happen(event::SetNumber{1});
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
  driver.happen(event::Upgrade{});
  EXPECT_EQ(driver.until_deadline(), seconds{20});
}

TEST(PoolStop, SignalsEverybodyAndLeavesWithZeroWhenTheyAreGone) {
  Driver driver(manual(3));
  driver.start();
  driver.ack(1);
  driver.take();
  driver.happen(event::Stop{SIGTERM, false});
  EXPECT_THAT(driver.take(), ElementsAre("stopping TERM", "signaling TERM [1@0 2@1 3@2]",
                                         "TERM -> 1@0", "TERM -> 2@1", "TERM -> 3@2"));
  driver.exit(1);
  driver.exit(2);
  EXPECT_THAT(driver.take(), ElementsAre("exited 1@0 stopping", "exited 2@1 before ACK stopping"))
      << "nobody is replaced";
  driver.exit(3);
  EXPECT_THAT(driver.take(), ElementsAre("exited 3@2 before ACK stopping", "gone", "leave 0"));
  EXPECT_TRUE(driver.pool().ledger().left);
}

TEST(PoolStop, OfAnEmptyPoolLeavesAtOnce) {
  Driver driver(manual(1));
  driver.happen(event::Stop{});
  EXPECT_THAT(driver.take(), ElementsAre("stopping USR2", "gone", "leave 0"));
}

TEST(PoolStop, EndsBackOffAndUpgrade) {
  Config config = manual(2);
  config.upgrade_timeout = seconds{60};
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.happen(event::Upgrade{});
  driver.exit(3, exited(1));
  ASSERT_TRUE(driver.pool().next_deadline().has_value());
  driver.happen(event::Stop{});
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
  EXPECT_FALSE(driver.pool().ledger().upgrade.has_value());
  driver.take();
  driver.exit(1);
  driver.exit(2);
  EXPECT_THAT(driver.take("leave"), ElementsAre("leave 0"));
}

TEST(PoolStop, CommandsOfAPoolThatStopsStartNobody) {
  Driver driver(manual(2));
  driver.start();
  driver.ack_all();
  driver.happen(event::Stop{});
  driver.take();
  driver.happen(event::SetNumber{5});
  driver.happen(event::Upgrade{});
  driver.happen(event::RollBack{});
  driver.happen(event::Reconfigured{manual(7)});
  driver.advance(minutes{10});
  EXPECT_THAT(driver.take(),
              ElementsAre("number 2->5", "roll-back refused: Einhorn is going down"));
}

TEST(PoolStop, WhoIsBeingSpawnedIsStoppedOnceItRuns) {
  Driver driver(manual(1));
  driver.hold_spawns = true;
  driver.start();
  driver.happen(event::Stop{});
  driver.take();
  driver.release_spawns();
  EXPECT_THAT(driver.take(), ElementsAre("launched 1@0 v0", "signaling USR2 [1@0]", "USR2 -> 1@0"));
}

TEST(PoolStop, ASecondOneSignalsAgain) {
  Driver driver(manual(1));
  driver.start();
  driver.ack(1);
  driver.happen(event::Stop{SIGUSR2, false});
  driver.take();
  driver.happen(event::Stop{SIGUSR2, false});
  EXPECT_THAT(driver.take(),
              ElementsAre("stopping USR2", "signaling USR2 [1@0] again [1@0]", "USR2 -> 1@0"));
}

TEST(PoolStop, WithSignalsThatTheKernelSentSendsNone) {
  Config config = manual(2);
  config.signal_timeout = seconds{3};
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.take();
  driver.happen(event::Stop{SIGUSR2, true});
  EXPECT_THAT(driver.take(), ElementsAre("stopping USR2"));
  EXPECT_EQ(driver.in(WorkerState::kStopping), (Epochs{1, 2}));
  driver.run_to_deadline();
  EXPECT_THAT(driver.take("KILL"), ElementsAre("KILL => 1@0", "KILL => 2@1"));
}

TEST(PoolQuit, SignalsEverybodyAndLeavesAtOnceWithOne) {
  Driver driver(manual(2));
  driver.start();
  driver.take();
  driver.happen(event::Quit{SIGQUIT});
  EXPECT_THAT(driver.take(), ElementsAre("stopping QUIT", "signaling QUIT [1@0 2@1]", "QUIT -> 1@0",
                                         "QUIT -> 2@1", "leave 1"));
  driver.exit(1);
  driver.exit(2);
  EXPECT_THAT(driver.take("leave"), IsEmpty()) << "the word is given once";
}

TEST(PoolSignalAll, ReachesEverybodyAndChangesNothing) {
  Driver driver(manual(3));
  driver.start();
  driver.ack(1);
  driver.happen(event::SetNumber{2});  // 2 stops
  driver.take();
  driver.happen(event::SignalAll{SIGHUP});
  EXPECT_THAT(driver.take(),
              ElementsAre("signaling HUP [1@0 2@1 3@2]", "HUP -> 1@0", "HUP -> 2@1", "HUP -> 3@2"));
  EXPECT_FALSE(driver.find(1)->signaled.has(SIGHUP)) << "it was somebody else's signal";
  EXPECT_EQ(driver.find(1)->state, WorkerState::kReady);
}

TEST(PoolReconfigured, TakesEffectAtOnce) {
  Driver driver(manual(1));
  driver.start();
  driver.ack(1);
  driver.take();
  driver.happen(event::Reconfigured{manual(3)});
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 2@1 v0", "spawn 3@2 v0"));
  driver.ack_all();
  driver.happen(event::Reconfigured{manual(1)});
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0", "USR2 -> 2@1"));
}

}  // namespace
}  // namespace einhorn::pool::testing
