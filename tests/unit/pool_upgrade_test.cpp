// Upgrades: their order, their canaries, their failure and the way back.
#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Epochs = std::vector<std::uint64_t>;

// A pool of that config, all of version 0 and ready.
Driver serving(Config config) {
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.advance(seconds{10});
  driver.take();
  driver.watch_ready();
  return driver;
}

TEST(PoolSmoothUpgrade, ReplacesOneByOneAndTellsUpstreamsStory) {
  Config config = manual(3);
  config.max_unacked = 1;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  EXPECT_THAT(driver.take(),
              ElementsAre("upgrade smooth v0->v1", "spawn 4@3 v1", "launched 4@3 v1"));
  driver.ack(4);
  EXPECT_THAT(driver.take(), ElementsAre("acked 4@3 manual after 0s", "up to 1/3", "proved v1 by 1",
                                         "culling 1 old smoothly", "signaling USR2 [1@0]",
                                         "USR2 -> 1@0", "spawn 5@4 v1", "launched 5@4 v1"));
  driver.exit(1);
  driver.ack(5);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 2@1", "spawn 6@0 v1"));
  driver.exit(2);
  driver.take();
  driver.ack(6);
  EXPECT_THAT(driver.take(), ElementsAre("acked 6@0 manual after 0s", "up to 3/3", "culling 1 old",
                                         "signaling USR2 [3@2]", "USR2 -> 3@2", "upgraded v1"))
      << "the last old ones are told before anybody hears that it is over";
  EXPECT_GE(driver.least_ready(), 3u);
  driver.exit(3);
  const Ledger& ledger = driver.pool().ledger();
  EXPECT_EQ(ledger.version, Version{1});
  EXPECT_EQ(ledger.proved, Version{1});
  EXPECT_EQ(ledger.previous, Version{0});
  EXPECT_FALSE(ledger.upgrade.has_value());
  EXPECT_EQ(driver.pool().alive(), 3u);
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
}

TEST(PoolSmoothUpgrade, NeverFallsBelowTheNumber) {
  for (const std::uint32_t number : {1U, 2U, 7U, 20U}) {
    for (const std::uint32_t unacked : {1U, 3U, 100U}) {
      for (const std::uint32_t canary : {0U, 1U, 4U}) {
        Config config = manual(number);
        config.max_unacked = unacked;
        config.canary = canary;
        Driver driver = serving(config);
        driver.happen(event::Upgrade{});
        driver.settle_upgrade();
        EXPECT_EQ(driver.least_ready(), number) << number << " " << unacked << " " << canary;
        EXPECT_EQ(driver.of(Version{1}, WorkerState::kReady).size(), number);
        EXPECT_EQ(driver.pool().alive(), number);
      }
    }
  }
}

TEST(PoolSmoothUpgrade, KeepsTheOldOnesThatNeverCameUpUntilItIsOver) {
  Driver driver(manual(2));
  driver.start();
  driver.ack(1);
  driver.happen(event::Upgrade{});
  driver.ack(3);  // proved; 2 of 2 are ready now
  EXPECT_EQ(driver.find(2)->state, WorkerState::kStarting);
  EXPECT_EQ(driver.find(1)->state, WorkerState::kReady);
  driver.take();
  driver.ack(4);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0", "USR2 -> 2@1"));
}

TEST(PoolFleetUpgrade, StartsAllAndStopsNobodyBeforeAllAreReady) {
  Config config = manual(3);
  config.max_unacked = 1;
  config.canary = 0;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{false, true});
  EXPECT_THAT(driver.take("spawn "), ElementsAre("spawn 4@3 v1", "spawn 5@4 v1", "spawn 6@5 v1"));
  driver.ack(4);
  driver.ack(6);
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  driver.ack(5);
  EXPECT_THAT(driver.take(), ElementsAre("acked 5@4 manual after 0s", "up to 3/3", "culling 3 old",
                                         "signaling USR2 [1@0 2@1 3@2]", "USR2 -> 1@0",
                                         "USR2 -> 2@1", "USR2 -> 3@2", "upgraded v1"));
  EXPECT_EQ(driver.least_ready(), 3u);
}

TEST(PoolFleetUpgrade, FollowsItsCanary) {
  Driver driver = serving(manual(3));
  driver.happen(event::Upgrade{false, true});
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 4@3 v1"));
  driver.ack(4);
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 5@4 v1", "spawn 6@5 v1"));
  driver.ack(5);
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  driver.ack(6);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0", "USR2 -> 2@1", "USR2 -> 3@2"));
}

TEST(PoolCanary, SeveralHaveToProveAVersion) {
  Config config = manual(5);
  config.canary = 2;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 6@5 v1", "spawn 7@6 v1"));
  driver.ack(6);
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  driver.ack(7);
  EXPECT_THAT(driver.take("proved"), ElementsAre("proved v1 by 2"));
}

TEST(PoolCanary, MoreThanThereAreWorkersMeansAll) {
  Config config = manual(2);
  config.canary = 50;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(3);
  EXPECT_THAT(driver.take("USR2"), IsEmpty());
  driver.ack(4);
  EXPECT_THAT(driver.take("upgraded"), ElementsAre("upgraded v1"));
}

TEST(PoolCanary, HasToStayUpForItsSeconds) {
  Config config = manual(2);
  config.canary_seconds = seconds{30};
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.advance(seconds{5});
  driver.ack(3);
  EXPECT_EQ(driver.until_deadline(), seconds{30});
  driver.take();
  driver.advance(milliseconds{29'999});
  EXPECT_THAT(driver.take(), IsEmpty());
  EXPECT_FALSE(driver.pool().ledger().upgrade->proved);
  driver.advance(milliseconds{1});
  EXPECT_THAT(driver.take("proved"), ElementsAre("proved v1 by 1"));
  EXPECT_EQ(driver.pool().next_deadline(), driver.find(4)->spawned_at + minutes{1});
}

TEST(PoolCanary, WhoDiesMeanwhileIsReplacedAndStartsAnew) {
  Config config = manual(2);
  config.canary_seconds = seconds{30};
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(3);
  driver.advance(seconds{20});
  driver.exit(3, killed(SIGSEGV));
  EXPECT_EQ(driver.pool().ledger().upgrade->failures, 1u);
  driver.ack(4);
  driver.advance(seconds{29});
  EXPECT_FALSE(driver.pool().ledger().upgrade->proved);
  driver.advance(seconds{1});
  EXPECT_TRUE(driver.pool().ledger().upgrade->proved);
}

TEST(PoolCanary, OldOnesAreReplacedByTheirOwnVersionMeanwhile) {
  Config config = manual(3);
  config.canary_seconds = seconds{30};
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(4);
  driver.take();
  driver.exit(2, killed(SIGKILL));
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 5@1 v0"));
}

TEST(PoolCanary, ThatHangsDoesNotKeepOldOnesFromBeingReplaced) {
  Config config = manual(3);
  config.max_unacked = 1;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});  // 4 is the canary, and never says anything
  driver.take();
  driver.exit(2, killed(SIGKILL));
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 5@1 v0"));
  driver.exit(3, killed(SIGKILL));
  EXPECT_THAT(driver.take_acts(), IsEmpty()) << "one at a time";
  driver.ack(5);
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 6@2 v0"));
}

// Whoever is started dies, but for a worker of that version.
bool gets_its_turn(Driver& driver, Version version) {
  for (int turns = 0; turns < 20; ++turns) {
    for (const std::uint64_t epoch : driver.in(WorkerState::kStarting)) {
      if (driver.find(epoch)->version == version) {
        return true;
      }
      driver.exit(epoch, exited(1));
    }
    driver.run_to_deadline();
  }
  return false;
}

TEST(PoolCanary, OldOnesThatDieAgainAndAgainDoNotKeepItFromStarting) {
  for (const bool paced : {true, false}) {
    Config config = manual(2);
    config.upgrade_failures = 0;
    if (paced) {
      config.seconds = seconds{1};
    }
    Driver driver(config);
    driver.start();
    driver.happen(event::Upgrade{});
    for (int times = 0; times < 3; ++times) {
      ASSERT_TRUE(gets_its_turn(driver, Version{1})) << paced;
      driver.exit(driver.of(Version{1}, WorkerState::kStarting)[0], exited(1));
    }
    ASSERT_TRUE(gets_its_turn(driver, Version{1})) << paced;
    driver.ack(driver.of(Version{1}, WorkerState::kStarting)[0]);
    EXPECT_TRUE(driver.pool().ledger().upgrade->proved);
  }
}

TEST(PoolCanary, ThatDiesAgainAndAgainDoesNotKeepOldOnesFromBeingReplaced) {
  Config config = manual(2);
  config.upgrade_failures = 0;
  config.seconds = seconds{1};
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  for (const std::uint64_t killed_one : {1U, 2U}) {
    ASSERT_TRUE(gets_its_turn(driver, Version{1}));
    driver.exit(killed_one, killed(SIGKILL));
    driver.exit(driver.of(Version{1}, WorkerState::kStarting)[0], exited(1));
    ASSERT_TRUE(gets_its_turn(driver, Version{0}));
    driver.ack(driver.of(Version{0}, WorkerState::kStarting)[0]);
  }
  EXPECT_EQ(driver.pool().ready(), 2u);
}

TEST(PoolUpgradeFailure, CrashesAtStartLeadBack) {
  Driver driver = serving(manual(3));
  driver.happen(event::Upgrade{});
  driver.exit(4, exited(1));
  driver.run_to_deadline();
  driver.exit(5, killed(SIGSEGV));
  driver.run_to_deadline();
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 2u);
  driver.take();
  driver.exit(6, exited(1));
  EXPECT_THAT(driver.take(),
              ElementsAre("exited 6@3 before ACK",
                          "upgrade failed v0->v1: 3 new workers failed; worker 3 of version 1 "
                          "exited with status 1 before it was ACKed; worker 3 of version 1 was "
                          "killed by signal 11 (SEGV) before it was ACKed; worker 3 of version 1 "
                          "exited with status 1 before it was ACKed",
                          "rolling back v1->v0", "rolled back v0"));
  const Ledger& ledger = driver.pool().ledger();
  EXPECT_EQ(ledger.version, Version{0});
  EXPECT_EQ(ledger.newest, Version{1});
  EXPECT_EQ(ledger.proved, Version{0});
  EXPECT_EQ(ledger.previous, std::nullopt) << "a version that failed is nothing to go back to";
  EXPECT_EQ(ledger.deaths_before_ack, 0u);
  EXPECT_TRUE(ledger.failure.starts_with("upgrade to version 1 failed: 3 new workers failed; "));
  EXPECT_EQ(driver.least_ready(), 3u);
  EXPECT_EQ(driver.in(WorkerState::kReady), (Epochs{1, 2, 3}));
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
}

TEST(PoolUpgradeFailure, FailedSpawnsLeadBack) {
  Driver driver = serving(manual(2));
  driver.refuse_spawn = [](const Spawn& spawn) {
    return spawn.version == Version{1} ? std::optional<std::string>("exec ./x: no") : std::nullopt;
  };
  driver.happen(event::Upgrade{});
  driver.advance(seconds{10});
  EXPECT_THAT(driver.take("upgrade failed"),
              ElementsAre("upgrade failed v0->v1: 3 new workers failed; worker 2 of version 1 "
                          "exec ./x: no; worker 2 of version 1 exec ./x: no; worker 2 of version "
                          "1 exec ./x: no"));
  EXPECT_EQ(driver.pool().ledger().version, Version{0});
  EXPECT_EQ(driver.in(WorkerState::kReady), (Epochs{1, 2}));
}

TEST(PoolUpgradeFailure, MissedAcksLeadBack) {
  Config config = manual(2);
  config.ack_timeout = seconds{20};
  config.upgrade_failures = 1;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.take();
  driver.advance(seconds{20});
  EXPECT_THAT(driver.take(),
              ElementsAre("ack missed 3@2 20s", "signaling USR2 [3@2]", "USR2 -> 3@2",
                          "upgrade failed v0->v1: 1 new workers failed; worker 2 of version 1 did "
                          "not ACK within 20 s",
                          "rolling back v1->v0", "rolled back v0"));
  EXPECT_EQ(driver.least_ready(), 2u);
}

TEST(PoolUpgradeFailure, AnUpgradeThatTakesTooLongLeadsBack) {
  Config config = manual(3);
  config.upgrade_timeout = seconds{40};
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(4);  // proved: 5 and 6 follow, and hang
  driver.exit(1);
  driver.take();
  driver.advance(seconds{39});
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.advance(seconds{1});
  EXPECT_THAT(driver.take(),
              ElementsAre("upgrade failed v0->v1: it was not over within 40 s",
                          "rolling back v1->v0", "signaling USR2 [5@4 6@5]", "USR2 -> 5@4",
                          "USR2 -> 6@5", "spawn 7@0 v0", "launched 7@0 v0"));
  EXPECT_EQ(driver.in(WorkerState::kReady), (Epochs{2, 3, 4})) << "4 serves until 7 does";
  driver.ack(7);
  EXPECT_THAT(driver.take("rolled"), ElementsAre("rolled back v0"));
  EXPECT_EQ(driver.find(4)->state, WorkerState::kStopping);
  EXPECT_EQ(driver.least_ready(), 3u);
}

TEST(PoolUpgradeFailure, WithoutRollBackItGoesOnTrying) {
  Config config = manual(2);
  config.upgrade_timeout = seconds{40};
  Driver driver = serving(config);
  driver.happen(event::Upgrade{true, false});
  EXPECT_THAT(driver.in(WorkerState::kStarting), ElementsAre(3, 4)) << "no canary to wait for";
  for (int death = 0; death < 8; ++death) {
    driver.exit(driver.in(WorkerState::kStarting).back(), exited(1));
    driver.ack_all();
    driver.exit_stopping();
    if (driver.in(WorkerState::kStarting).empty() && driver.until_deadline()) {
      driver.run_to_deadline();
    }
    if (driver.in(WorkerState::kStarting).empty()) {
      break;
    }
  }
  EXPECT_EQ(driver.pool().ledger().version, Version{1});
  EXPECT_THAT(driver.take("upgrade failed"), IsEmpty());
}

TEST(PoolUpgradeFailure, OfZeroFailuresAllowsAnyNumber) {
  Config config = manual(1);
  config.upgrade_failures = 0;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  for (std::uint64_t epoch = 2; epoch < 40; ++epoch) {
    driver.exit(epoch, exited(1));
    driver.run_to_deadline();
  }
  EXPECT_TRUE(driver.pool().ledger().upgrade.has_value());
  EXPECT_EQ(driver.pool().ledger().upgrade->failures, 38u);
  EXPECT_EQ(driver.pool().ledger().upgrade->reports.size(), 10u) << "the first few are enough";
  EXPECT_EQ(driver.find(1)->state, WorkerState::kReady);
}

TEST(PoolUpgradeFailure, DeathsOfOldWorkersDoNotCount) {
  Config config = manual(3);
  config.upgrade_failures = 1;
  config.canary_seconds = seconds{60};
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(4);
  driver.exit(1, killed(SIGKILL));
  driver.exit(2, killed(SIGKILL));
  EXPECT_EQ(driver.pool().ledger().upgrade->failures, 0u);
}

TEST(PoolUpgradeFailure, DeathsAfterTheAckCountToo) {
  Config config = manual(2);
  config.upgrade_failures = 2;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(3);
  driver.exit(3, exited(4));
  driver.take();
  driver.exit(4, exited(4));
  EXPECT_THAT(driver.take("upgrade failed"),
              ElementsAre("upgrade failed v0->v1: 2 new workers failed; worker 2 of version 1 "
                          "exited with status 4 after its ACK; worker 3 of version 1 exited with "
                          "status 4 before it was ACKed"));
}

TEST(PoolUpgradeFailure, ARollBackThatFailsGoesOnAsAPoolThatIsShort) {
  Config config = manual(2);
  config.upgrade_failures = 1;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(3);  // proved: an old one goes
  driver.exit(1);
  driver.exit(4, exited(1));  // v1 fails: back to v0, of which one is missing
  ASSERT_TRUE(driver.pool().ledger().upgrade.has_value());
  const Epochs old = driver.of(Version{0}, WorkerState::kStarting);
  ASSERT_EQ(old.size(), 1u);
  driver.take();
  driver.exit(old[0], exited(1));
  EXPECT_THAT(driver.take("roll-back incomplete").size(), 1u);
  EXPECT_EQ(driver.pool().ready(), 2u) << "the new one that works serves on meanwhile";
  EXPECT_TRUE(driver.pool().next_deadline().has_value()) << "it tries again, with pauses";
  driver.run_to_deadline();
  EXPECT_FALSE(driver.of(Version{0}, WorkerState::kStarting).empty());
}

TEST(PoolUpgradeFailure, ARollBackByHandThatFailsGoesForwardAgain) {
  Config config = manual(2);
  config.upgrade_failures = 2;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.settle_upgrade();
  driver.happen(event::RollBack{});
  const Epochs old = driver.in(WorkerState::kStarting);
  ASSERT_EQ(old.size(), 2u);
  driver.exit(old[0], exited(1));
  driver.take();
  driver.exit(old[1], exited(1));
  EXPECT_THAT(driver.take("rolled back"), ElementsAre("rolled back v1"));
  EXPECT_EQ(driver.of(Version{1}, WorkerState::kReady).size(), 2u) << "they served all the time";
}

TEST(PoolUpgradeAgain, BumpsTheVersionAndKeepsWhatServes) {
  Config config = manual(3);
  config.max_unacked = 1;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(4);
  driver.take();
  driver.happen(event::Upgrade{});
  EXPECT_THAT(driver.take(), ElementsAre("upgrade smooth v0->v2 again, 1 ready", "spawn 6@5 v2",
                                         "launched 6@5 v2"));
  EXPECT_EQ(driver.pool().ledger().upgrade->from, Version{0}) << "v1 never came up completely";
  driver.settle_upgrade();
  EXPECT_EQ(driver.least_ready(), 3u);
  EXPECT_EQ(driver.of(Version{2}, WorkerState::kReady).size(), 3u);
  EXPECT_EQ(driver.pool().alive(), 3u);
  EXPECT_EQ(driver.pool().ledger().previous, Version{0});
}

TEST(PoolUpgradeAgain, WhoseSecondVersionFailsGoesBackToTheProvedOne) {
  Config config = manual(2);
  config.upgrade_failures = 1;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.happen(event::Upgrade{});
  const Epochs newest = driver.of(Version{2}, WorkerState::kStarting);
  ASSERT_EQ(newest.size(), 1u);
  driver.take();
  driver.exit(newest[0], exited(1));
  EXPECT_THAT(driver.take("rolling"), ElementsAre("rolling back v2->v0"));
  driver.settle_upgrade();
  EXPECT_EQ(driver.of(Version{0}, WorkerState::kReady).size(), 2u);
  EXPECT_EQ(driver.pool().alive(), 2u);
}

TEST(PoolUpgradeAgain, DuringARollBackStartsFromWhereItGoesTo) {
  Config config = manual(2);
  config.upgrade_failures = 1;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{});
  driver.ack(3);
  driver.exit(1);             // an old one has gone already
  driver.exit(4, exited(1));  // v1 fails: going back, 5 of v0 is starting
  ASSERT_TRUE(driver.pool().ledger().upgrade.has_value());
  ASSERT_TRUE(driver.pool().ledger().upgrade->going_back);
  driver.take();
  driver.happen(event::Upgrade{});
  EXPECT_THAT(driver.take("upgrade"), ElementsAre("upgrade smooth v0->v2 again, 1 ready"));
  EXPECT_EQ(driver.pool().ledger().upgrade->from, Version{0});
}

TEST(PoolRollBack, ByHandGoesToThePreviousVersionAndBackAgain) {
  Driver driver = serving(manual(2));
  driver.happen(event::Upgrade{});
  driver.settle_upgrade();
  driver.take();
  driver.watch_ready();
  driver.happen(event::RollBack{});
  EXPECT_THAT(driver.take("rolling"), ElementsAre("rolling back v1->v0"));
  driver.settle_upgrade();
  EXPECT_THAT(driver.take("rolled"), ElementsAre("rolled back v0"));
  EXPECT_EQ(driver.of(Version{0}, WorkerState::kReady).size(), 2u);
  EXPECT_EQ(driver.pool().ledger().previous, Version{1});
  EXPECT_EQ(driver.least_ready(), 2u);
  driver.happen(event::RollBack{});
  driver.settle_upgrade();
  EXPECT_EQ(driver.of(Version{1}, WorkerState::kReady).size(), 2u);
  driver.happen(event::Upgrade{});
  EXPECT_EQ(driver.pool().ledger().version, Version{2}) << "a number is given once";
}

TEST(PoolRollBack, OfAnUpgradeThatIsUnderWayAbortsIt) {
  Driver driver = serving(manual(3));
  driver.happen(event::Upgrade{});
  driver.take();
  driver.happen(event::RollBack{});
  EXPECT_THAT(driver.take(),
              ElementsAre("upgrade failed v0->v1: rolled back by hand", "rolling back v1->v0",
                          "signaling USR2 [4@3]", "USR2 -> 4@3", "rolled back v0"));
  EXPECT_EQ(driver.in(WorkerState::kReady), (Epochs{1, 2, 3}));
}

TEST(PoolRollBack, IsRefusedWhenItMeansNothing) {
  Driver driver = serving(manual(2));
  driver.happen(event::RollBack{});
  EXPECT_THAT(driver.take(), ElementsAre("roll-back refused: there is no version before this one"));
  driver.happen(event::Upgrade{});
  driver.settle_upgrade();
  driver.happen(event::RollBack{});
  driver.take();
  driver.happen(event::RollBack{});
  EXPECT_THAT(driver.take(), ElementsAre("roll-back refused: a roll-back is already under way"));
}

TEST(PoolMaxUpgradeAdditional, LimitsHowManyThereAre) {
  for (const std::uint32_t additional : {0U, 1U, 2U}) {
    Config config = manual(4);
    config.max_upgrade_additional = additional;
    Driver driver = serving(config);
    driver.happen(event::Upgrade{});
    std::size_t most = 0;
    for (int turns = 0; turns < 100 && driver.pool().ledger().upgrade; ++turns) {
      most = std::max(most, driver.pool().alive());
      driver.ack_all();
      most = std::max(most, driver.pool().alive());
      const Epochs leaving = driver.in(WorkerState::kStopping);
      if (!leaving.empty()) {
        driver.exit(leaving.front());
      }
    }
    EXPECT_FALSE(driver.pool().ledger().upgrade.has_value());
    EXPECT_EQ(most, 4u + std::max(1U, additional)) << additional;
    EXPECT_EQ(driver.least_ready(), 4u);
  }
}

TEST(PoolMaxUpgradeAdditional, DoesNotHoldUpAFleetUpgradeWhoseWorkersDie) {
  Config config = manual(4);
  config.max_upgrade_additional = 1;
  config.upgrade_failures = 0;
  Driver driver = serving(config);
  driver.happen(event::Upgrade{false, true});
  driver.ack_all();
  driver.exit(6, exited(1));  // which ends the starts at once
  for (int turns = 0; turns < 20 && driver.pool().ledger().upgrade; ++turns) {
    driver.ack_all();
    driver.advance(seconds{2});
  }
  EXPECT_FALSE(driver.pool().ledger().upgrade.has_value());
  EXPECT_EQ(driver.least_ready(), 4u);
}

TEST(PoolMaxUpgradeAdditional, HoldsNobodyBackOtherwise) {
  Config config = manual(2);
  config.max_upgrade_additional = 1;
  Driver driver = serving(config);
  driver.happen(event::SetNumber{6});
  EXPECT_EQ(driver.pool().alive(), 6u);
}

TEST(PoolUpgrade, OfFewerOrMoreWorkersOnTheWay) {
  Driver driver = serving(manual(4));
  driver.happen(event::Upgrade{});
  driver.ack(5);
  driver.happen(event::SetNumber{2});
  driver.settle_upgrade();
  EXPECT_EQ(driver.of(Version{1}, WorkerState::kReady).size(), 2u);
  EXPECT_EQ(driver.pool().alive(), 2u);
  driver.happen(event::Upgrade{});
  driver.happen(event::SetNumber{5});
  driver.settle_upgrade();
  EXPECT_EQ(driver.of(Version{2}, WorkerState::kReady).size(), 5u);
  EXPECT_EQ(driver.pool().alive(), 5u);
}

TEST(PoolUpgrade, SaysWhichVersionsAreStillInUse) {
  Driver driver = serving(manual(1));
  const auto versions = [&driver] {
    std::vector<std::uint64_t> numbers;
    for (const Version version : driver.pool().versions_in_use()) {
      numbers.push_back(version.value);
    }
    return numbers;
  };
  EXPECT_THAT(versions(), ElementsAre(0));
  driver.happen(event::Upgrade{});
  EXPECT_THAT(versions(), ElementsAre(0, 1));
  driver.settle_upgrade();
  driver.happen(event::Upgrade{});
  driver.settle_upgrade();
  EXPECT_THAT(versions(), ElementsAre(1, 2)) << "the present one and the one to go back to";
}

}  // namespace
}  // namespace einhorn::pool::testing
