// A start that waits for its hook, and a stop signal that does.
#include <csignal>

#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Config hooked(std::uint32_t number, bool start, bool stop) {
  Config config = manual(number);
  config.hook_before_start = start;
  config.hook_before_stop = stop;
  return config;
}

Driver held(const Config& config) {
  Driver driver(config);
  driver.hold_hooks = true;
  driver.start();
  return driver;
}

// --- before a start -----------------------------------------------------------------------------

TEST(PoolHooks, AStartWaitsForItsHook) {
  Driver driver = held(hooked(1, true, false));
  EXPECT_THAT(driver.take_acts(), ElementsAre("run before-start 1@0 v0"));
  EXPECT_EQ(driver.find(1)->state, WorkerState::kSpawning);
  EXPECT_EQ(driver.find(1)->hook, Hook::kBeforeStart);
  driver.advance(minutes{5});  // however long it takes: its time is the master's matter
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.end_hook(1);
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 1@0 v0"));
  EXPECT_EQ(driver.find(1)->hook, Hook::kNone);
  EXPECT_EQ(driver.find(1)->spawned_at, driver.now());  // its life begins now
}

TEST(PoolHooks, TheAckIsWaitedForFromTheStartOn) {
  Config config = hooked(1, true, false);
  config.ack_timeout = seconds{10};
  Driver driver = held(config);
  driver.advance(seconds{60});
  driver.end_hook(1);
  driver.advance(seconds{9});
  EXPECT_EQ(driver.find(1)->state, WorkerState::kStarting);
  driver.advance(seconds{2});
  EXPECT_EQ(driver.find(1)->state, WorkerState::kStopping);
}

TEST(PoolHooks, AFailingOneIsAFailedStartWithBackOff) {
  Driver driver = held(hooked(1, true, false));
  driver.take();
  driver.end_hook(1, false);
  EXPECT_THAT(driver.take(), ElementsAre("launch failed 1@0 v0: its hook exited with status 1",
                                         "backing off 1.5s deaths 1"));
  driver.run_to_deadline();
  EXPECT_THAT(driver.take_acts(), ElementsAre("run before-start 2@0 v0"));
}

TEST(PoolHooks, FailingOnesOfANewVersionFailItsUpgrade) {
  Config config = hooked(2, true, false);
  config.seconds = milliseconds{10};
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.hold_hooks = true;
  driver.happen(event::Upgrade{});
  for (std::uint64_t epoch = 3; epoch <= 5; ++epoch) {
    if (driver.find(epoch) == nullptr) {
      driver.run_to_deadline();
    }
    ASSERT_NE(driver.find(epoch), nullptr) << epoch;
    driver.end_hook(epoch, false);
  }
  EXPECT_THAT(driver.take("upgrade failed"), ::testing::SizeIs(1));
  EXPECT_EQ(driver.pool().ledger().version, Version{0});
  EXPECT_EQ(driver.of(Version{0}, WorkerState::kReady).size(), 2U);
}

TEST(PoolHooks, WhoIsNotWantedAnyMoreIsNotStarted) {
  Driver driver = held(hooked(2, true, false));
  driver.take();
  driver.happen(event::SetNumber{1});
  EXPECT_THAT(driver.take_acts(), ElementsAre("end hook 1@0"));
  EXPECT_EQ(driver.find(1), nullptr);
  driver.happen(event::Stop{SIGTERM});
  EXPECT_THAT(driver.take_acts(), ElementsAre("end hook 2@1", "leave 0"));
}

TEST(PoolHooks, AnEndThatComesTooLateIsIgnored) {
  Driver driver = held(hooked(1, true, false));
  const WorkerId first = driver.id(1);
  driver.happen(event::SetNumber{0});
  driver.take();
  driver.happen(event::HookEnded{first});
  driver.happen(event::HookEnded{first, false, "no"});
  EXPECT_THAT(driver.take(), IsEmpty());
}

TEST(PoolHooks, OnlySoManyAreStartingHooksIncluded) {
  Config config = hooked(4, true, false);
  config.max_unacked = 1;
  config.max_unacked_given = true;
  Driver driver(config);
  driver.hold_hooks = true;
  driver.happen(event::Started{});
  while (driver.pool().starting() > 0 && driver.pool().modern_ready() < 4) {
    const std::vector<std::uint64_t> spawning = driver.in(WorkerState::kSpawning);
    for (const std::uint64_t epoch : spawning) {
      driver.end_hook(epoch);
      driver.ack(epoch);
    }
  }
  EXPECT_EQ(driver.pool().modern_ready(), 4U);
  driver.happen(event::Upgrade{});
  EXPECT_EQ(driver.pool().starting(), 1U);
}

// --- before a stop signal -----------------------------------------------------------------------

TEST(PoolHooks, AStopSignalWaitsForItsHook) {
  Driver driver = held(hooked(1, false, true));
  driver.ack(1);
  driver.take();
  driver.happen(event::Upgrade{});
  driver.ack(2);
  EXPECT_THAT(driver.take_acts(), ElementsAre("spawn 2@1 v1", "run before-stop 1@0 v0"));
  EXPECT_EQ(driver.find(1)->state, WorkerState::kStopping);
  EXPECT_TRUE(driver.find(1)->signaled.empty());
  driver.advance(minutes{1});
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.end_hook(1);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0"));
}

TEST(PoolHooks, AFailingOneOnlyWarns) {
  Driver driver = held(hooked(1, false, true));
  driver.ack(1);
  driver.happen(event::Stop{SIGTERM});
  driver.take();
  driver.end_hook(1, false);
  EXPECT_THAT(driver.take_acts(), ElementsAre("TERM -> 1@0"));
}

TEST(PoolHooks, KillCountsFromTheSignal) {
  Config config = hooked(1, false, true);
  config.signal_timeout = seconds{5};
  Driver driver = held(config);
  driver.ack(1);
  driver.happen(event::Stop{SIGTERM});
  driver.advance(seconds{20});
  driver.take();
  driver.end_hook(1);
  EXPECT_THAT(driver.take_acts(), ElementsAre("TERM -> 1@0"));
  driver.advance(milliseconds{4900});
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.advance(milliseconds{200});
  EXPECT_THAT(driver.take_acts(), ElementsAre("KILL => 1@0"));
}

TEST(PoolHooks, ALaterSignalTakesTheFirstOnesPlace) {
  Driver driver = held(hooked(1, false, true));
  driver.ack(1);
  driver.happen(event::Stop{SIGUSR2});
  driver.happen(event::Stop{SIGTERM});
  driver.take();
  driver.end_hook(1);
  EXPECT_THAT(driver.take_acts(), ElementsAre("TERM -> 1@0"));
  driver.happen(event::Stop{SIGINT});  // who has had one gets all others at once
  EXPECT_THAT(driver.take_acts(), ElementsAre("INT -> 1@0"));
}

TEST(PoolHooks, QuittingWaitsForNothing) {
  Driver driver = held(hooked(2, true, true));
  driver.end_hook(1);
  driver.ack(1);
  driver.take();
  driver.happen(event::Quit{SIGQUIT});
  EXPECT_THAT(driver.take_acts(), ElementsAre("end hook 2@1", "QUIT -> 1@0", "leave 1"));
}

TEST(PoolHooks, QuittingEndsAHookThatRuns) {
  Driver driver = held(hooked(1, false, true));
  driver.ack(1);
  driver.happen(event::Stop{SIGTERM});
  driver.take();
  driver.happen(event::Quit{SIGQUIT});
  EXPECT_THAT(driver.take_acts(), ElementsAre("end hook 1@0", "QUIT -> 1@0", "leave 1"));
}

TEST(PoolHooks, WhoDiesMeanwhileGetsNoSignal) {
  Driver driver = held(hooked(1, false, true));
  driver.ack(1);
  const WorkerId first = driver.id(1);
  driver.happen(event::Stop{SIGTERM});
  driver.take();
  driver.exit(1);
  EXPECT_THAT(driver.take_acts(), ElementsAre("leave 0"));
  driver.happen(event::HookEnded{first});
  EXPECT_THAT(driver.take(), IsEmpty());
}

TEST(PoolHooks, AHungWorkerHasItsHookToo) {
  Config config = hooked(1, false, true);
  config.health.ping_timeout = seconds{5};
  Driver driver = held(config);
  driver.ack(1);
  driver.happen(event::Pinged{driver.id(1), "1"});
  driver.advance(seconds{6});
  driver.take();
  driver.happen(event::Examined{driver.id(1)});
  EXPECT_THAT(driver.take_acts(), ElementsAre("run before-stop 1@0 v0"));
  driver.end_hook(1);
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0"));
}

TEST(PoolHooks, TheKernelsOwnSignalIsNotHeldBack) {
  Driver driver = held(hooked(1, false, true));
  driver.ack(1);
  driver.take();
  driver.happen(event::Stop{SIGUSR2, true});
  EXPECT_THAT(driver.take_acts(), IsEmpty());
  EXPECT_TRUE(driver.find(1)->signaled.has(SIGUSR2));
}

TEST(PoolHooks, ANewMasterWaitsOn) {
  Driver driver = held(hooked(2, true, true));
  driver.end_hook(1);
  driver.ack(1);
  driver.happen(event::SetNumber{1});
  driver.take();
  driver.restore();
  ASSERT_NE(driver.find(1), nullptr);
  driver.advance(minutes{1});
  EXPECT_EQ(driver.pool().modern_ready(), 1U);
  driver.happen(event::Stop{SIGTERM});
  driver.restore();
  EXPECT_EQ(driver.find(1)->hook, Hook::kBeforeStop);
  driver.take();
  driver.end_hook(1);
  EXPECT_THAT(driver.take_acts(), ElementsAre("TERM -> 1@0"));
}

// At every step of an upgrade with both hooks, the pool made anew from what was kept.
TEST(PoolHooks, AnUpgradeSurvivesAMasterAtEveryStep) {
  for (std::size_t at = 0; at < 60; ++at) {
    SCOPED_TRACE(at);
    Driver driver(hooked(3, true, true));
    driver.restore_before_step = at;
    driver.start();
    driver.ack_all();
    driver.happen(event::Upgrade{});
    driver.settle_upgrade();
    EXPECT_EQ(driver.of(Version{1}, WorkerState::kReady).size(), 3U);
    EXPECT_EQ(driver.pool().alive(), 3U);
  }
}

}  // namespace
}  // namespace einhorn::pool::testing
