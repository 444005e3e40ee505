// Filling up, ACKs, pacing, back-off, giving up: how workers come to life and are replaced.
#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Epochs = std::vector<std::uint64_t>;

TEST(PoolFirstFill, LaunchesAllAtOnceWhateverThePacing) {
  Config config = manual(4);
  config.max_unacked = 1;
  config.max_unacked_given = true;
  config.seconds = seconds{10};
  Driver driver(config);
  driver.start();
  EXPECT_THAT(driver.take(), ElementsAre("launching 4", "spawn 1@0 v0", "spawn 2@1 v0",
                                         "spawn 3@2 v0", "spawn 4@3 v0", "launched 1@0 v0",
                                         "launched 2@1 v0", "launched 3@2 v0", "launched 4@3 v0"));
  EXPECT_EQ(driver.pool().alive(), 4u);
  EXPECT_EQ(driver.pool().starting(), 4u);
  EXPECT_EQ(driver.until_deadline(), minutes{1});  // of the missing ACKs, and nothing else
}

TEST(PoolFirstFill, IsSpreadOverTurnsWhenItIsHuge) {
  Driver driver(manual(200));
  driver.start();  // the driver takes every turn that the pool asks for
  EXPECT_EQ(driver.take("launching "), Lines{"launching 200"});
  EXPECT_EQ(driver.pool().alive(), 200u);
  EXPECT_GE(driver.steps(), 200u / 64u);
}

TEST(PoolFirstFill, StopsWhenOneDiesBeforeItsAck) {
  Config config = manual(3);
  config.max_unacked = 1;
  Driver driver(config);
  driver.refuse_spawn = [](const Spawn& spawn) {
    return spawn.worker.epoch.value == 1 ? std::optional<std::string>("exec ./x: no")
                                         : std::nullopt;
  };
  driver.start();
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 1u);
  EXPECT_EQ(driver.pool().ledger().burst_left, 0u);
  EXPECT_EQ(driver.pool().alive(), 2u);
}

TEST(PoolAck, TimerMakesReadyAfterTheDelay) {
  Config config = by_timer(2);
  config.ack_delay = milliseconds{1500};
  Driver driver(config);
  driver.start();
  driver.take();
  driver.advance(milliseconds{1499});
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.advance(milliseconds{1});
  EXPECT_THAT(driver.take(), ElementsAre("acked 1@0 timer after 1.5s", "up to 1/2",
                                         "acked 2@1 timer after 1.5s", "up to 2/2"));
  EXPECT_EQ(driver.pool().modern_ready(), 2u);
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt) << "a stable pool waits for nothing";
}

TEST(PoolAck, TimerOfZeroMakesReadyAtOnce) {
  Config config = by_timer(3);
  config.ack_delay = Duration::zero();
  Driver driver(config);
  driver.start();
  EXPECT_EQ(driver.pool().ready(), 3u);
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
}

TEST(PoolAck, ManualAndNotifyComeFromTheWorker) {
  for (const AckMode mode : {AckMode::kManual, AckMode::kNotify}) {
    Config config = manual(1);
    config.ack_mode = mode;
    Driver driver(config);
    driver.start();
    driver.advance(milliseconds{250});
    driver.take();
    driver.ack(1, mode);
    EXPECT_THAT(driver.take(),
                ElementsAre(mode == AckMode::kManual ? "acked 1@0 manual after 0.25s"
                                                     : "acked 1@0 notify after 0.25s",
                            "up to 1/1"));
    EXPECT_EQ(driver.find(1)->acked_at, driver.now());
    EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
  }
}

TEST(PoolAck, OfTheWrongKindIsRefusedAndDoesNothing) {
  for (const AckMode wanted : {AckMode::kTimer, AckMode::kManual, AckMode::kNotify}) {
    for (const AckMode given : {AckMode::kManual, AckMode::kNotify}) {
      if (wanted == given) {
        continue;
      }
      Config config = manual(1);
      config.ack_mode = wanted;
      Driver driver(config);
      driver.start();
      driver.take();
      driver.ack(1, given);
      EXPECT_THAT(driver.take(),
                  ElementsAre(given == AckMode::kManual ? "ack refused 1@0 manual wrong mode"
                                                        : "ack refused 1@0 notify wrong mode"));
      EXPECT_EQ(driver.find(1)->state, WorkerState::kStarting);
    }
  }
}

TEST(PoolAck, TheSecondOneIsRefused) {
  Driver driver(manual(1));
  driver.start();
  driver.ack(1);
  const auto first = driver.find(1)->acked_at;
  driver.advance(seconds{1});
  driver.take();
  driver.ack(1);
  driver.ack(1, AckMode::kNotify);
  EXPECT_THAT(driver.take(),
              ElementsAre("ack refused 1@0 manual repeated", "ack refused 1@0 notify repeated"));
  EXPECT_EQ(driver.find(1)->acked_at, first);
}

TEST(PoolAck, OfAStoppingWorkerIsKeptButDoesNotMakeItReady) {
  Driver driver(manual(2));
  driver.start();
  driver.happen(event::SetNumber{1});
  ASSERT_EQ(driver.in(WorkerState::kStopping), Epochs{1});
  driver.take();
  driver.ack(1);
  EXPECT_THAT(driver.take(), ElementsAre("acked 1@0 manual after 0s"));
  EXPECT_EQ(driver.find(1)->state, WorkerState::kStopping);
  EXPECT_TRUE(driver.find(1)->acked());
}

TEST(PoolAck, BeforeTheSpawnIsKnownTellsThatItRuns) {
  Driver driver(manual(1));
  driver.hold_spawns = true;
  driver.start();
  driver.happen(event::Stop{SIGTERM, false});
  driver.take();
  driver.ack(1);
  // Whoever is to be stopped is stopped, and not forgotten for having been quick.
  EXPECT_EQ(driver.find(1)->state, WorkerState::kStopping);
  driver.take();
  driver.release_spawns();
  EXPECT_THAT(driver.take(), IsEmpty());
}

TEST(PoolAckTimeout, WarnsEachMinuteThenStopsAndKills) {
  Config config = manual(1);
  config.ack_timeout = seconds{150};
  Driver driver(config);
  driver.start();
  driver.take();
  driver.advance(seconds{149});
  EXPECT_THAT(driver.take(), ElementsAre("ack overdue 1@0 60s", "ack overdue 1@0 120s"));
  driver.advance(seconds{1});
  EXPECT_THAT(driver.take(), ElementsAre("ack missed 1@0 150s", "signaling USR2 [1@0]",
                                         "USR2 -> 1@0", "spawn 2@1 v0", "launched 2@1 v0"));
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 1u) << "it counts as a death before ACK";
  EXPECT_TRUE(driver.find(1)->missed_ack);
  driver.advance(seconds{10});
  EXPECT_THAT(driver.take(), ElementsAre("killing 1@0 after 10s", "KILL => 1@0"));
  driver.exit(1, killed(SIGKILL));
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 1u) << "and is not counted twice";
}

TEST(PoolAckTimeout, OfZeroWaitsForEver) {
  Config config = manual(1);
  config.ack_timeout = Duration::zero();
  Driver driver(config);
  driver.start();
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
}

TEST(PoolAckTimeout, IsNotMovedByReconfiguring) {
  Config config = manual(1);
  config.ack_timeout = seconds{300};
  Driver driver(config);
  driver.start();
  driver.take();
  for (int i = 0; i < 30; ++i) {
    driver.advance(seconds{10});
    driver.happen(event::Reconfigured{config});
  }
  EXPECT_THAT(driver.take("ack "),
              ElementsAre("ack overdue 1@0 60s", "ack overdue 1@0 120s", "ack overdue 1@0 180s",
                          "ack overdue 1@0 240s", "ack missed 1@0 300s"));
}

TEST(PoolBackOff, GrowsByHalfUpToThirtySeconds) {
  Driver driver(manual(1));
  driver.start();
  double wanted = 1.0;
  for (int deaths = 1; deaths <= 14; ++deaths) {
    const Worker* newest = driver.find(static_cast<std::uint64_t>(deaths));
    ASSERT_NE(newest, nullptr);
    const Instant started = newest->spawned_at;
    driver.exit(static_cast<std::uint64_t>(deaths), exited(1));
    wanted = std::min(wanted * 1.5, 30.0);
    ASSERT_TRUE(driver.until_deadline().has_value());
    EXPECT_NEAR(to_seconds(*driver.pool().next_deadline() - started), wanted, 1e-6) << deaths;
    driver.take();
    driver.run_to_deadline();
    EXPECT_THAT(driver.take("spawn "),
                ElementsAre("spawn " + std::to_string(deaths + 1) + "@0 v0"));
  }
}

TEST(PoolBackOff, IsSaidOncePerWait) {
  Driver driver(manual(1));
  driver.start();
  driver.exit(1, exited(1));
  EXPECT_THAT(driver.take("backing off"), ElementsAre("backing off 1.5s deaths 1"));
  driver.happen(event::SignalAll{SIGUSR1});
  driver.happen(event::TimerDue{});
  EXPECT_THAT(driver.take("backing off"), IsEmpty());
}

TEST(PoolBackOff, IsOverWithTheFirstAckAlsoWhileWaiting) {
  Config config = manual(2);
  Driver driver(config);
  driver.start();
  for (int death = 0; death < 6; ++death) {
    driver.exit(driver.in(WorkerState::kStarting).back(), exited(1));
    if (death < 5) {
      driver.run_to_deadline();
    }
  }
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 6u);
  ASSERT_GT(*driver.until_deadline(), seconds{5});
  driver.take();
  driver.ack(1);
  EXPECT_THAT(driver.take(), ElementsAre("acked 1@0 manual after 19.7812s", "up to 1/2 breaking 6",
                                         "spawn 8@1 v0", "launched 8@1 v0"));
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 0u);
}

TEST(PoolBackOff, CountsFailedSpawnsToo) {
  Driver driver(manual(1));
  driver.refuse_spawn = [](const Spawn&) { return "exec ./x: Permission denied"; };
  driver.start();
  EXPECT_THAT(driver.take(), ElementsAre("launching 1", "spawn 1@0 v0",
                                         "launch failed 1@0 v0: exec ./x: Permission denied",
                                         "backing off 1.5s deaths 1"));
  driver.advance(seconds{60});
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 8u);
  EXPECT_EQ(driver.pool().alive(), 0u);
}

TEST(PoolPacing, SecondsAreKeptBetweenSpinUps) {
  Config config = manual(1);
  config.seconds = seconds{3};
  Driver driver(config);
  driver.start();
  driver.ack(1);
  driver.happen(event::SetNumber{4});
  EXPECT_EQ(driver.pool().alive(), 1u) << "3 s after the last one, not at once";
  std::vector<Duration> gaps;
  Instant last = driver.find(1)->spawned_at;
  for (std::uint64_t epoch = 2; epoch <= 4; ++epoch) {
    driver.run_to_deadline();
    ASSERT_NE(driver.find(epoch), nullptr);
    gaps.push_back(driver.find(epoch)->spawned_at - last);
    last = driver.find(epoch)->spawned_at;
    driver.ack(epoch);
  }
  EXPECT_THAT(gaps, ElementsAre(seconds{3}, seconds{3}, seconds{3}));
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
}

TEST(PoolPacing, SecondsGrowWithDeathsAndMayExceedThirty) {
  Config config = manual(1);
  config.seconds = seconds{2};
  Driver driver(config);
  driver.start();
  driver.exit(1, exited(1));
  EXPECT_EQ(driver.until_deadline(), seconds{3});
  Config slow = manual(1);
  slow.seconds = seconds{45};
  Driver other(slow);
  other.start();
  other.exit(1, exited(1));
  EXPECT_EQ(other.until_deadline(), seconds{45}) << "never faster than asked for";
}

TEST(PoolPacing, AtMostMaxUnackedStartAtATime) {
  Config config = manual(1);
  config.max_unacked = 2;
  Driver driver(config);
  driver.start();
  driver.ack(1);
  driver.happen(event::SetNumber{6});
  EXPECT_EQ(driver.in(WorkerState::kStarting), (Epochs{2, 3}));
  driver.ack(2);
  EXPECT_EQ(driver.in(WorkerState::kStarting), (Epochs{3, 4}));
  driver.ack(4);
  driver.ack(3);
  EXPECT_EQ(driver.in(WorkerState::kStarting), (Epochs{5, 6}));
  driver.ack(5);
  driver.ack(6);
  EXPECT_EQ(driver.pool().modern_ready(), 6u);
  EXPECT_THAT(driver.in(WorkerState::kStarting), IsEmpty());
}

TEST(PoolReplacement, OfEstablishedWorkersIsImmediateEvenIfAllDie) {
  Config config = manual(10);
  config.max_unacked = 1;
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.advance(seconds{1});
  driver.take();
  for (std::uint64_t epoch = 1; epoch <= 10; ++epoch) {
    driver.exit(epoch, killed(SIGKILL));
  }
  EXPECT_EQ(driver.in(WorkerState::kStarting).size(), 10u);
  EXPECT_EQ(driver.pool().ledger().deaths, 10u);
}

TEST(PoolReplacement, IsPacedWhenMaxUnackedWasAskedFor) {
  Config config = manual(10);
  config.max_unacked = 2;
  config.max_unacked_given = true;
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.advance(seconds{60});
  for (std::uint64_t epoch = 1; epoch <= 10; ++epoch) {
    driver.exit(epoch, killed(SIGKILL));
  }
  EXPECT_EQ(driver.in(WorkerState::kStarting).size(), 2u);
}

TEST(PoolReplacement, TakesTheLowestFreeSlot) {
  Driver driver(manual(4));
  driver.start();
  driver.ack_all();
  driver.advance(seconds{5});
  driver.happen(event::SetNumber{2});
  driver.exit_stopping();  // 1@0 and 2@1
  driver.take();
  driver.exit(4, killed(SIGKILL));
  driver.exit(3, killed(SIGKILL));
  EXPECT_THAT(driver.take("spawn "), ElementsAre("spawn 5@0 v0", "spawn 6@1 v0"));
}

TEST(PoolReplacement, OfWorkersThatAckAndDieAtOnceIsThrottledInTheEnd) {
  Config config = manual(1);
  Driver driver(config);
  driver.start();
  std::uint64_t epoch = 1;
  Instant now = driver.now();
  while (driver.find(epoch) != nullptr && epoch < 5000) {
    driver.ack(epoch);
    driver.exit(epoch, exited(0));
    ++epoch;
    ASSERT_EQ(driver.now(), now);
  }
  EXPECT_EQ(epoch, 1002u) << "a thousand in ten seconds, then pauses";
  EXPECT_EQ(driver.until_deadline(), milliseconds{500});
  driver.run_to_deadline();
  EXPECT_NE(driver.find(epoch), nullptr);
  driver.advance(seconds{11});
  driver.ack(epoch);
  driver.exit(epoch, exited(0));
  EXPECT_NE(driver.find(epoch + 1), nullptr) << "calm again";
}

TEST(PoolGiveUp, FailsAfterThatManyDeathsAndLeavesWhenNothingServes) {
  Config config = manual(1);
  config.give_up = 3;
  Driver driver(config);
  driver.start();
  driver.exit(1, exited(1));
  driver.run_to_deadline();
  driver.exit(2, exited(1));
  driver.run_to_deadline();
  driver.take();
  driver.exit(3, exited(1));
  EXPECT_THAT(driver.take(), ElementsAre("exited 3@0 before ACK", "gave up after 3", "leave 1"));
  EXPECT_TRUE(driver.pool().ledger().failed);
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
}

TEST(PoolGiveUp, StaysWhileSomebodyServesAndRecoversOnRequest) {
  Config config = manual(2);
  config.give_up = 2;
  Driver driver(config);
  driver.start();
  driver.ack(1);
  driver.exit(2, exited(1));
  driver.run_to_deadline();
  driver.take();
  driver.exit(3, exited(1));
  EXPECT_THAT(driver.take(), ElementsAre("exited 3@1 before ACK", "gave up after 2"));
  driver.advance(minutes{10});
  EXPECT_THAT(driver.take(), IsEmpty()) << "it started somebody after having given up";
  driver.happen(event::SetNumber{2});
  EXPECT_THAT(driver.take(),
              ElementsAre("number 2->2", "recovered", "spawn 4@1 v0", "launched 4@1 v0"));
  EXPECT_FALSE(driver.pool().ledger().failed);
}

TEST(PoolGiveUp, EndsWithTheLastWorker) {
  Config config = manual(2);
  config.give_up = 1;
  Driver driver(config);
  driver.start();
  driver.ack(1);
  driver.exit(2, exited(1));
  ASSERT_TRUE(driver.pool().ledger().failed);
  driver.take();
  driver.exit(1, exited(0));
  EXPECT_THAT(driver.take(), ElementsAre("exited 1@0", "leave 1"));
}

TEST(PoolGiveUp, AnUpgradeTriesAgain) {
  Config config = manual(2);
  config.give_up = 1;
  Driver driver(config);
  driver.start();
  driver.ack(1);
  driver.exit(2, exited(1));
  driver.take();
  driver.happen(event::Upgrade{true, false});
  EXPECT_THAT(driver.take(), ElementsAre("upgrade smooth v0->v1", "recovered", "spawn 3@1 v1",
                                         "spawn 4@2 v1", "launched 3@1 v1", "launched 4@2 v1"));
}

TEST(PoolNews, PingsAndStatusAreKept) {
  Driver driver(manual(1));
  driver.start();
  driver.advance(seconds{4});
  driver.happen(event::Pinged{driver.id(1), "\"abc\""});
  driver.happen(event::StatusSaid{driver.id(1), "warming up"});
  EXPECT_EQ(driver.find(1)->pinged_at, driver.now());
  EXPECT_EQ(driver.find(1)->pinged_request_id, "\"abc\"");
  EXPECT_EQ(driver.find(1)->status_text, "warming up");
}

TEST(PoolQuiet, AStablePoolWaitsForNothing) {
  Config config = by_timer(3);
  config.seconds = seconds{5};
  config.signal_timeout = seconds{5};
  config.drain_timeout = seconds{5};
  config.upgrade_timeout = seconds{60};
  config.canary_seconds = seconds{3};
  Driver driver(config);
  driver.start();
  driver.advance(seconds{1});
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
  driver.happen(event::Upgrade{});
  driver.advance(minutes{2});
  driver.exit_stopping();
  driver.advance(minutes{2});
  EXPECT_EQ(driver.pool().ledger().version, Version{1});
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
}

}  // namespace
}  // namespace einhorn::pool::testing
