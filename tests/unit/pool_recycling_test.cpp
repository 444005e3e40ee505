// Workers that are above a limit are replaced before they go; slots that flap are left empty.
#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kMegabyte = 1U << 20U;

Config with_memory(std::uint32_t number) {
  Config config = manual(number);
  config.health.of(Measure::kMemory) = {300 * kMegabyte, 500 * kMegabyte, 2, 3};
  return config;
}

Driver pool_of(Config config) {
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.take();
  return driver;
}

void measure(Driver& driver, std::uint64_t epoch, std::uint64_t megabytes) {
  driver.happen(
      event::Sampled{{Sample{.worker = driver.id(epoch), .memory = megabytes * kMegabyte}}});
}

// --- samples ------------------------------------------------------------------------------------

TEST(PoolSamples, AreTakenOfEverybodyInTurns) {
  Driver driver = pool_of(with_memory(100));
  driver.advance(seconds{2});
  const Lines lines = driver.take("sample");
  ASSERT_EQ(lines.size(), 2U) << "no more than a part at a time";
  EXPECT_THAT(lines[0], ::testing::HasSubstr(" 64@63]"));
  EXPECT_THAT(lines[1], ::testing::HasSubstr("[65@64 "));
  driver.advance(seconds{20});
  EXPECT_EQ(driver.take("sample").size(), 20U);
}

TEST(PoolSamples, NothingIsMeasuredThatNobodyAskedFor) {
  Driver driver = pool_of(manual(3));
  EXPECT_FALSE(driver.until_deadline().has_value());
}

TEST(PoolSamples, KOutOfN) {
  Driver driver = pool_of(with_memory(1));
  measure(driver, 1, 400);
  measure(driver, 1, 200);
  measure(driver, 1, 200);
  measure(driver, 1, 400);
  EXPECT_THAT(driver.take("ailing"), IsEmpty());
  measure(driver, 1, 301);
  EXPECT_THAT(driver.take("ailing"),
              ElementsAre("ailing 1@0 memory: memory 301.0M is over 300.0M in 2 of 3 samples"));
}

TEST(PoolSamples, CpuIsAveragedOverItsWindow) {
  Config config = manual(1);
  config.health.of(Measure::kCpu) = {80, std::nullopt, 1, 1};
  config.health.cpu_window = seconds{10};
  Driver driver = pool_of(config);
  Duration used{};
  const auto run = [&](int for_seconds, double share) {
    for (int i = 0; i < for_seconds; ++i) {
      driver.advance(seconds{1});
      used += from_seconds(share);
      driver.happen(event::Sampled{{Sample{.worker = driver.id(1), .cpu = used}}});
    }
    return driver.take("ailing");
  };
  EXPECT_THAT(run(5, 1.0), IsEmpty()) << "not yet long enough";
  EXPECT_THAT(run(30, 0.5), IsEmpty());
  EXPECT_THAT(run(4, 1.0), IsEmpty()) << "a peak";
  EXPECT_EQ(run(20, 1.0).size(), 1U);
}

// --- recycling ----------------------------------------------------------------------------------

TEST(PoolRecycling, TheReplacementIsReadyFirst) {
  Driver driver = pool_of(with_memory(2));
  driver.watch_ready();
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 3@2 v0"));
  EXPECT_EQ(driver.find(1)->state, WorkerState::kReady) << "it serves on";
  EXPECT_TRUE(driver.find(1)->recycling);
  driver.ack(3);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0"));
  driver.exit(1);
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  EXPECT_EQ(driver.least_ready(), 2U);
  EXPECT_EQ(driver.pool().ledger().deaths, 0U) << "that was no death";
}

TEST(PoolRecycling, OneAtATimeUntilItIsGone) {
  Driver driver = pool_of(with_memory(3));
  for (const std::uint64_t epoch : {1U, 2U, 3U}) {
    measure(driver, epoch, 400);
    measure(driver, epoch, 400);
  }
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 4@3 v0"));
  driver.ack(4);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0"));
  driver.advance(seconds{1});
  EXPECT_THAT(driver.take_acts(), IsEmpty()) << "it still stops";
  driver.exit(1);
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 5@0 v0"));
}

TEST(PoolRecycling, AsManyAtATimeAsAllowed) {
  Config config = with_memory(3);
  config.health.max_recycling = 2;
  Driver driver = pool_of(config);
  for (const std::uint64_t epoch : {1U, 2U, 3U}) {
    measure(driver, epoch, 400);
    measure(driver, epoch, 400);
  }
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 4@3 v0", "spawn 5@4 v0"));
}

TEST(PoolRecycling, AReplacementThatDiesIsTriedAgainWhileTheOldOneServes) {
  Driver driver = pool_of(with_memory(1));
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  driver.take();
  driver.exit(2, exited(1));
  driver.advance(seconds{5});
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 3@1 v0"));
  EXPECT_EQ(driver.find(1)->state, WorkerState::kReady);
  driver.ack(3);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0"));
}

TEST(PoolRecycling, AnAilingWorkerThatDiesNeedsNoSecondReplacement) {
  Driver driver = pool_of(with_memory(1));
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  driver.take();
  driver.exit(1, killed(SIGSEGV));
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  driver.ack(2);
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  EXPECT_EQ(driver.pool().alive(), 1U);
}

// --- by hand ------------------------------------------------------------------------------------

TEST(PoolReplace, TheReplacementComesFirst) {
  Driver driver = pool_of(manual(2));
  driver.happen(event::Replace{driver.id(2)});
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 3@2 v0"));
  driver.advance(seconds{30});
  EXPECT_EQ(driver.find(2)->state, WorkerState::kReady) << "it serves until then";
  driver.ack(3);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 2@1"));
  driver.exit(2, exited(0));
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  EXPECT_EQ(driver.pool().modern_ready(), 2U);
  EXPECT_EQ(driver.pool().ledger().deaths, 0U);
}

TEST(PoolReplace, OneAfterTheOther) {
  Driver driver = pool_of(manual(3));
  for (const std::uint64_t epoch : {3, 1, 2, 3}) {
    driver.happen(event::Replace{driver.id(epoch)});
  }
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 4@3 v0"));
  driver.ack(4);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 3@2"));
  driver.exit(3, exited(0));
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 5@2 v0"));
}

TEST(PoolReplace, WhoIsNotUpYetGoesAtOnceAndIsNoDeath) {
  Driver driver(manual(1));
  driver.start();
  driver.take();
  driver.happen(event::Replace{driver.id(1)});
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0", "spawn 2@1 v0"));
  driver.exit(1, exited(1));
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 0U);
  driver.ack(2);
  EXPECT_EQ(driver.pool().modern_ready(), 1U);
}

TEST(PoolReplace, AfterAnUpgradeItsTurnComes) {
  Driver driver = pool_of(manual(2));
  driver.happen(event::Upgrade{});
  driver.ack(3);
  driver.take();
  const Worker* fresh = driver.find(3);
  ASSERT_NE(fresh, nullptr);
  driver.happen(event::Replace{driver.id(3)});
  EXPECT_THAT(driver.take("recycling"), IsEmpty()) << "the upgrade replaces everybody";
  driver.settle_upgrade();
  EXPECT_FALSE(driver.pool().ledger().upgrade.has_value());
  EXPECT_THAT(driver.take("recycling"), ElementsAre("recycling 3@2 asked"));
}

TEST(PoolReplace, AnOldOneGoesWithItsVersion) {
  Driver driver = pool_of(manual(2));
  driver.happen(event::Upgrade{});
  driver.take();
  driver.happen(event::Replace{driver.id(1)});
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  driver.settle_upgrade();
  EXPECT_EQ(driver.find(1), nullptr);
  EXPECT_EQ(driver.pool().alive(), 2U);
}

TEST(PoolReplace, NobodyIsReplacedInAPoolThatGoesDown) {
  Driver driver = pool_of(manual(1));
  driver.happen(event::Stop{SIGTERM, false});
  driver.take();
  driver.happen(event::Replace{driver.id(1)});
  EXPECT_THAT(driver.take_acts(), IsEmpty());
}

TEST(PoolRecycling, AnUpgradeReplacesThemAnyway) {
  Config config = with_memory(2);
  Driver driver = pool_of(config);
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  driver.ack_all();
  driver.exit_stopping();
  measure(driver, 2, 400);
  measure(driver, 2, 400);
  driver.take();
  driver.happen(event::Upgrade{});
  driver.settle_upgrade();
  EXPECT_EQ(driver.pool().alive(), 2U);
  EXPECT_EQ(driver.pool().modern_ready(), 2U);
  EXPECT_FALSE(driver.pool().ledger().upgrade.has_value());
}

TEST(PoolRecycling, NobodyIsRecycledOnceItsVersionIsOld) {
  Config config = with_memory(2);
  config.upgrade_failures = 1;
  Driver driver = pool_of(config);
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  EXPECT_TRUE(driver.find(1)->recycling);
  driver.happen(event::Upgrade{});
  EXPECT_FALSE(driver.find(1)->recycling);
}

TEST(PoolRecycling, AfterAFailedUpgradeItIsGoneOnWith) {
  Config config = with_memory(1);
  config.upgrade_failures = 1;
  config.canary_seconds = seconds{60};
  Driver driver = pool_of(config);
  driver.happen(event::Upgrade{});
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  EXPECT_FALSE(driver.find(1)->recycling);
  driver.exit(2, exited(1));
  driver.advance(seconds{5});
  driver.settle_upgrade();
  driver.advance(seconds{5});
  driver.settle_upgrade();
  EXPECT_EQ(driver.find(1), nullptr) << "it was replaced after all";
  EXPECT_EQ(driver.pool().ready(), 1U);
}

TEST(PoolRecycling, ANewMasterGoesOn) {
  Driver driver = pool_of(with_memory(2));
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  driver.restore();
  driver.happen(event::TimerDue{});
  driver.take();
  driver.ack(3);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0"));
}

TEST(PoolRecycling, FewerWorkersAreWantedMeanwhile) {
  Driver driver = pool_of(with_memory(2));
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  driver.happen(event::SetNumber{1});
  driver.settle_upgrade();
  EXPECT_EQ(driver.pool().alive(), 1U);
  EXPECT_EQ(driver.find(1), nullptr);
}

TEST(PoolRecycling, AgeHasAJitter) {
  Config config = manual(50);
  config.health.max_age = seconds{1000};
  config.health.max_recycling = 50;
  Driver driver = pool_of(config);
  driver.advance(seconds{899});
  EXPECT_THAT(driver.take("ailing"), IsEmpty());
  driver.advance(seconds{50});
  const std::size_t half = driver.take("ailing").size();
  EXPECT_GT(half, 10U);
  EXPECT_LT(half, 40U);
  driver.advance(seconds{51});
  EXPECT_EQ(driver.take("ailing").size(), 50U - half);
}

TEST(PoolRecycling, RequestsAreCountedFromPings) {
  Config config = manual(1);
  config.health.max_requests = 3;
  config.health.jitter_percent = 0;
  Driver driver = pool_of(config);
  const auto ping = [&](const std::string& id) {
    driver.happen(event::Pinged{driver.id(1), id, std::nullopt});
  };
  ping("null");  // alive, no request
  ping("1");
  ping("1");  // the same one
  ping("2");
  EXPECT_THAT(driver.take("ailing"), IsEmpty());
  driver.happen(event::Pinged{driver.id(1), "null", true});
  EXPECT_THAT(driver.take("ailing"), ElementsAre("ailing 1@0 requests: 3 requests"));
}

TEST(PoolRecycling, AHardLimitKillsAtOnce) {
  Driver driver = pool_of(with_memory(2));
  driver.advance(seconds{2});
  driver.take();
  measure(driver, 1, 501);
  EXPECT_THAT(driver.take(), ElementsAre("killed 1@0 memory: memory 501.0M is over the hard limit "
                                         "of 500.0M",
                                         "KILL => 1@0", "spawn 3@2 v0", "launched 3@2 v0"));
  measure(driver, 1, 502);
  EXPECT_THAT(driver.take(), IsEmpty()) << "once";
}

TEST(PoolRecycling, AStoppingWorkerAboveTheHardLimitIsKilledToo) {
  Driver driver = pool_of(with_memory(1));
  measure(driver, 1, 400);
  measure(driver, 1, 400);
  driver.ack(2);
  driver.take();
  measure(driver, 1, 501);
  EXPECT_THAT(driver.take_acts(), ElementsAre("KILL => 1@0"));
  driver.exit(1, killed(SIGKILL));
  EXPECT_EQ(driver.pool().alive(), 1U);
}

// --- flapping -----------------------------------------------------------------------------------

Config flapping(std::uint32_t number) {
  Config config = manual(number);
  config.health.flapping = {3, seconds{60}, minutes{10}, 2};
  return config;
}

// The worker in slot 0 dies, and so do those that follow it, until it is paused.
void flap(Driver& driver) {
  for (int i = 0; i < 3; ++i) {
    driver.advance(seconds{2});
    for (const Worker* worker : driver.pool().workers()) {
      if (worker->id.slot.value == 0) {
        const std::uint64_t epoch = worker->id.epoch.value;
        if (!worker->acked()) {
          driver.ack(epoch);
        }
        driver.exit(epoch, killed(SIGSEGV));
        break;
      }
    }
  }
}

TEST(PoolFlapping, OnlyThatSlotIsPausedAndTriedAgain) {
  Driver driver = pool_of(flapping(3));
  flap(driver);
  EXPECT_THAT(driver.take("paused"), ElementsAre("paused @0 after 3 for 600s retry 1/2"));
  EXPECT_EQ(driver.pool().alive(), 2U);
  driver.exit(driver.in(WorkerState::kReady).front(), exited(0));
  EXPECT_EQ(driver.pool().alive(), 2U) << "others are replaced as always";
  EXPECT_EQ(driver.pool().paused(), 1U);
  driver.ack_all();
  driver.take();
  driver.advance(minutes{10});
  EXPECT_THAT(driver.take(), ElementsAre("resumed @0", ::testing::HasSubstr("@0 v0"),
                                         ::testing::HasSubstr("launched")));
  driver.ack_all();
  EXPECT_EQ(driver.pool().ready(), 3U);
}

TEST(PoolFlapping, GivenUpAfterItsRetriesUntilSomebodySaysSo) {
  Driver driver = pool_of(flapping(1));
  for (int i = 0; i < 2; ++i) {
    flap(driver);
    EXPECT_EQ(driver.take("paused").size(), 1U);
    driver.advance(minutes{10});
  }
  flap(driver);
  EXPECT_THAT(driver.take("paused"), ElementsAre("paused @0 after 3 given up"));
  driver.advance(minutes{600});
  EXPECT_EQ(driver.pool().alive(), 0U);
  EXPECT_THAT(driver.take("leave"), IsEmpty()) << "the sockets stay open";
  driver.happen(event::SetNumber{1});
  EXPECT_EQ(driver.pool().alive(), 1U);
  EXPECT_TRUE(driver.pool().troubles().empty());
}

TEST(PoolFlapping, AnUpgradeTriesEverythingAgain) {
  Driver driver = pool_of(flapping(2));
  flap(driver);
  EXPECT_EQ(driver.pool().paused(), 1U);
  driver.happen(event::Upgrade{});
  driver.settle_upgrade();
  EXPECT_EQ(driver.pool().paused(), 0U);
  EXPECT_EQ(driver.pool().modern_ready(), 2U);
}

TEST(PoolFlapping, RareDeathsAreNone) {
  Driver driver = pool_of(flapping(1));
  for (int i = 0; i < 20; ++i) {
    driver.advance(seconds{31});
    driver.ack_all();
    driver.exit(driver.in(WorkerState::kReady).front(), exited(0));
    driver.ack_all();
  }
  EXPECT_THAT(driver.take("paused"), IsEmpty());
}

TEST(PoolFlapping, APauseOutlivesTheMaster) {
  Driver driver = pool_of(flapping(2));
  flap(driver);
  driver.restore();
  driver.happen(event::TimerDue{});
  EXPECT_EQ(driver.pool().paused(), 1U);
  EXPECT_EQ(driver.pool().alive(), 1U);
  driver.advance(minutes{10});
  EXPECT_EQ(driver.pool().alive(), 2U);
}

TEST(PoolFlapping, OffByDefault) {
  Driver driver = pool_of(manual(1));
  for (int i = 0; i < 100; ++i) {
    driver.advance(seconds{2});
    driver.exit(driver.in(WorkerState::kReady).front(), exited(0));
    driver.ack_all();
  }
  EXPECT_EQ(driver.pool().alive(), 1U);
  EXPECT_TRUE(driver.pool().troubles().empty());
}

}  // namespace
}  // namespace einhorn::pool::testing
