// Workers that hang: heartbeats, slow requests, probes, and how they are taken out.
#include "base/health_limits.h"
#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Config pinging(std::uint32_t number) {
  Config config = manual(number);
  config.health.ping_timeout = seconds{10};
  return config;
}

Driver pool_of(Config config) {
  Driver driver(config);
  driver.start();
  driver.ack_all();
  driver.advance(seconds{2});  // long enough to be replaced without pacing
  driver.take();
  return driver;
}

void ping(Driver& driver, std::uint64_t epoch, std::string id = "null",
          std::optional<bool> busy = std::nullopt) {
  driver.happen(event::Pinged{driver.id(epoch), std::move(id), busy});
}

// --- silence ------------------------------------------------------------------------------------

TEST(PoolHealth, WhoHasNeverPingedIsNotMissed) {
  Driver driver = pool_of(pinging(2));
  EXPECT_FALSE(driver.until_deadline().has_value());
  driver.advance(minutes{60});
  EXPECT_THAT(driver.take(), IsEmpty());
}

TEST(PoolHealth, SilenceAfterAPingIsFoundInTimeAndReplacedAtOnce) {
  Driver driver = pool_of(pinging(2));
  ping(driver, 1, "\"r7\"");
  driver.advance(milliseconds{9999});
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.advance(milliseconds{1});
  // The replacement does not wait for the old one, nor for its stack.
  EXPECT_THAT(driver.take(), ElementsAre("condemned 1@0 silent: no ping for 10s", "examine 1@0",
                                         "spawn 3@2 v0", "launched 3@2 v0"));
  EXPECT_TRUE(driver.find(1)->stopping());
  EXPECT_EQ(driver.pool().ready(), 1U);
  EXPECT_EQ(driver.pool().ledger().deaths, 1U);
  driver.happen(event::Examined{driver.id(1)});
  EXPECT_THAT(driver.take(), ElementsAre("signaling USR2 [1@0]", "USR2 -> 1@0"));
  driver.advance(seconds{10});
  EXPECT_THAT(driver.take(), ElementsAre("killing 1@0 after 10s", "KILL => 1@0"));
  driver.exit(1, killed(SIGKILL));
  EXPECT_THAT(driver.take(), ElementsAre("exited 1@0 stopping"));
  EXPECT_EQ(driver.pool().ledger().deaths, 1U) << "it was counted when it was taken out";
}

TEST(PoolHealth, KilledAfterTheTimeOfT) {
  Config config = pinging(1);
  config.signal_timeout = seconds{3};
  Driver driver = pool_of(config);
  ping(driver, 1);
  driver.advance(seconds{10});
  driver.happen(event::Examined{driver.id(1)});
  driver.take();
  driver.advance(seconds{3});
  EXPECT_THAT(driver.take("KILL"), ElementsAre("KILL => 1@0"));
}

TEST(PoolHealth, PingsKeepItAlive) {
  Driver driver = pool_of(pinging(1));
  for (int i = 0; i < 20; ++i) {
    ping(driver, 1);
    driver.advance(seconds{9});
  }
  EXPECT_THAT(driver.take(), IsEmpty());
}

TEST(PoolHealth, AnExaminationThatNeverEndsIsNotWaitedFor) {
  Driver driver = pool_of(pinging(1));
  ping(driver, 1);
  driver.advance(seconds{10});
  driver.take();
  driver.advance(milliseconds{2500});
  EXPECT_THAT(driver.take_acts(), ElementsAre("USR2 -> 1@0"));
  driver.happen(event::Examined{driver.id(1)});
  EXPECT_THAT(driver.take(), IsEmpty()) << "told once";
}

TEST(PoolHealth, AHungWorkerThatDiesWhileItIsExaminedIsNotReplacedTwice) {
  Driver driver = pool_of(pinging(1));
  ping(driver, 1);
  driver.advance(seconds{10});
  driver.take();
  driver.exit(1, killed(SIGQUIT));
  EXPECT_THAT(driver.take(), ElementsAre("exited 1@0 stopping"));
  EXPECT_EQ(driver.pool().alive(), 1U);
}

TEST(PoolHealth, SilenceBeforeTheAckBacksOff) {
  Config config = pinging(1);
  Driver driver(config);
  driver.start();
  ping(driver, 1);
  driver.take();
  driver.advance(seconds{10});
  EXPECT_THAT(driver.take("condemned"), ElementsAre("condemned 1@0 silent: no ping for 10s"));
  EXPECT_EQ(driver.pool().ledger().deaths_before_ack, 1U);
}

TEST(PoolHealth, NobodyIsBlamedForWhatCouldNotBeHeard) {
  Driver driver = pool_of(pinging(1));
  ping(driver, 1);
  driver.advance(seconds{5});
  driver.restore();  // a new master
  driver.advance(Duration::zero());
  driver.happen(event::TimerDue{});
  driver.advance(milliseconds{9999});
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.advance(milliseconds{1});
  EXPECT_THAT(driver.take("condemned"), ElementsAre("condemned 1@0 silent: no ping for 15s"));
}

TEST(PoolHealth, ItMaySayItselfThatItHangs) {
  Driver driver = pool_of(manual(1));
  driver.happen(event::Pinged{driver.id(1), "null", std::nullopt, true});
  EXPECT_THAT(driver.take("condemned"),
              ElementsAre("condemned 1@0 trigger: it says that it hangs (WATCHDOG=trigger)"));
}

TEST(PoolHealth, AHungWorkerOfANewVersionIsAFailureOfTheUpgrade) {
  Config config = pinging(1);
  config.upgrade_failures = 1;
  config.canary_seconds = seconds{60};
  Driver driver = pool_of(config);
  driver.happen(event::Upgrade{});
  driver.ack(2);
  ping(driver, 2);
  driver.take();
  driver.advance(seconds{10});
  EXPECT_THAT(driver.take("upgrade failed"),
              ElementsAre("upgrade failed v0->v1: 1 new workers failed; worker 1 of version 1 was "
                          "taken out: no ping for 10s"));
  EXPECT_EQ(driver.find(1)->state, WorkerState::kReady) << "the old one serves on";
}

TEST(PoolHealth, GoingDownDoesNotWaitForAnExamination) {
  Driver driver = pool_of(pinging(1));
  ping(driver, 1);
  driver.advance(seconds{10});
  driver.take();
  driver.happen(event::Stop{SIGTERM, false});
  EXPECT_THAT(driver.take("TERM"), ElementsAre("TERM -> 1@0", "TERM -> 2@1"));
}

// --- slow requests ------------------------------------------------------------------------------

Config slow(std::uint32_t number) {
  Config config = manual(number);
  config.health.request_timeout = seconds{30};
  return config;
}

TEST(PoolHealth, ARequestThatTakesTooLong) {
  Driver driver = pool_of(slow(1));
  ping(driver, 1, "\"GET /a\"", true);
  driver.advance(seconds{29});
  ping(driver, 1, "\"GET /a\"");  // it lives, and still has that request
  EXPECT_THAT(driver.take(), IsEmpty());
  driver.advance(seconds{1});
  EXPECT_THAT(driver.take("condemned"),
              ElementsAre("condemned 1@0 slow: busy with request \"GET /a\" for 30s"));
}

TEST(PoolHealth, ARequestThatEndsInTime) {
  Driver driver = pool_of(slow(1));
  for (int i = 0; i < 5; ++i) {
    ping(driver, 1, std::to_string(i), true);
    driver.advance(seconds{29});
    ping(driver, 1, std::to_string(i), false);
  }
  driver.advance(minutes{5});
  EXPECT_THAT(driver.take(), IsEmpty());
  EXPECT_EQ(driver.find(1)->requests, 5U);
}

TEST(PoolHealth, OfSeveralRequestsTheOldestOneCounts) {
  Driver driver = pool_of(slow(1));
  ping(driver, 1, "1", true);
  driver.advance(seconds{20});
  ping(driver, 1, "2", true);
  ping(driver, 1, "3", true);
  ping(driver, 1, "2", false);
  driver.advance(seconds{10});
  EXPECT_THAT(driver.take("condemned"),
              ElementsAre("condemned 1@0 slow: busy with request 1 for 30s"));
}

TEST(PoolHealth, RequestsWithoutAnId) {
  Driver driver = pool_of(slow(1));
  ping(driver, 1, "null", true);
  driver.advance(seconds{20});
  ping(driver, 1, "null", true);  // the next one: the end of the first was not said
  driver.advance(seconds{20});
  EXPECT_THAT(driver.take(), IsEmpty());
  ping(driver, 1, "null", false);
  driver.advance(minutes{5});
  EXPECT_THAT(driver.take(), IsEmpty());
  EXPECT_EQ(driver.find(1)->requests, 2U);
}

TEST(PoolHealth, AnEndThatIsHeardBeforeItsBeginningEndsIt) {
  Driver driver = pool_of(slow(1));
  ping(driver, 1, "7", false);
  ping(driver, 1, "7", true);
  EXPECT_TRUE(driver.find(1)->busy.empty());
  EXPECT_EQ(driver.find(1)->requests, 1U);
  ping(driver, 1, "7", true);
  EXPECT_EQ(driver.find(1)->busy.size(), 1U) << "the same id again is another request";
}

TEST(PoolHealth, ManyRequestsAtATimeAreBounded) {
  Driver driver = pool_of(slow(1));
  for (int i = 0; i < 1000; ++i) {
    ping(driver, 1, std::to_string(i), true);
  }
  EXPECT_EQ(driver.find(1)->busy.size(), limits::kMaxBusyRequests);
  EXPECT_EQ(driver.find(1)->busy.front().id, "0") << "the oldest one is kept";
}

// --- probes -------------------------------------------------------------------------------------

Config probed(std::uint32_t number) {
  Config config = manual(number);
  config.health.probe.on = true;
  config.health.probe.failures = 2;
  return config;
}

TEST(PoolHealth, ProbesThatFailInARow) {
  Driver driver = pool_of(probed(1));
  const auto answer = [&](bool well) {
    driver.advance(seconds{10});
    EXPECT_THAT(driver.take("probe 1@0"), ElementsAre("probe 1@0"));
    driver.happen(event::Probed{driver.id(1), well, well ? "" : "refused"});
  };
  answer(false);
  answer(true);
  answer(false);
  EXPECT_EQ(driver.find(1)->state, WorkerState::kReady);
  answer(false);
  EXPECT_THAT(driver.take("condemned"),
              ElementsAre("condemned 1@0 probe: 2 probes in a row failed, the last one: refused"));
}

TEST(PoolHealth, AProbeWhoseAnswerIsLostIsBegunAgain) {
  Driver driver = pool_of(probed(1));
  driver.advance(seconds{10});
  EXPECT_EQ(driver.take("probe").size(), 1U);
  driver.advance(seconds{25});
  EXPECT_EQ(driver.take("probe").size(), 1U);
  EXPECT_EQ(driver.find(1)->state, WorkerState::kReady);
}

TEST(PoolHealth, AnAnswerThatNobodyAskedForIsIgnored) {
  Driver driver = pool_of(probed(1));
  for (int i = 0; i < 10; ++i) {
    driver.happen(event::Probed{driver.id(1), false, "?"});
  }
  EXPECT_THAT(driver.take(), IsEmpty());
}

}  // namespace
}  // namespace einhorn::pool::testing
