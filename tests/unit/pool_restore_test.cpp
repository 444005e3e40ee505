// A pool made from its snapshot goes on as the one that was: a scripted life is lived once as it
// is, and then again with a new pool before each of its steps in turn.
#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

// What a new master may say again: that it waits. Everything else must be the same.
bool may_be_repeated(const std::string& line) {
  return line.starts_with("backing off") || line.starts_with("ack overdue");
}

Lines without_repeats(const Lines& lines) {
  Lines kept;
  for (const std::string& line : lines) {
    if (!may_be_repeated(line)) {
      kept.push_back(line);
    }
  }
  return kept;
}

struct Scenario {
  std::string name;
  Config config;
  std::function<void(Driver&)> live;
};

Config restless() {
  Config config = manual(3);
  config.max_unacked = 2;
  config.ack_timeout = seconds{130};
  config.signal_timeout = seconds{9};
  config.drain_timeout = seconds{6};
  config.canary_seconds = seconds{5};
  config.upgrade_timeout = seconds{400};
  return config;
}

std::vector<Scenario> scenarios() {
  std::vector<Scenario> all;
  all.push_back({"deaths and back-off", restless(), [](Driver& driver) {
                   driver.start();
                   driver.ack(1);
                   driver.exit(2, exited(1));
                   driver.advance(milliseconds{500});
                   driver.exit(3, exited(1));
                   driver.advance(seconds{20});
                   driver.exit(1, killed(SIGKILL));
                   driver.advance(seconds{20});
                   driver.ack_all();
                   driver.advance(seconds{200});
                 }});
  all.push_back({"numbers and stopping", restless(), [](Driver& driver) {
                   driver.start();
                   driver.ack_all();
                   driver.happen(event::SetNumber{5});
                   driver.advance(seconds{2});
                   driver.happen(event::SetNumber{2});
                   driver.advance(seconds{3});
                   driver.happen(event::Pinged{driver.id(5), "1"});
                   driver.advance(seconds{30});
                   driver.exit_stopping();
                   driver.happen(event::Stop{SIGTERM, false});
                   driver.advance(seconds{30});
                   driver.exit_stopping();
                 }});
  all.push_back({"a smooth upgrade", restless(), [](Driver& driver) {
                   driver.start();
                   driver.ack_all();
                   driver.advance(seconds{10});
                   driver.happen(event::Upgrade{});
                   driver.advance(seconds{1});
                   driver.ack_all();
                   driver.advance(seconds{3});
                   driver.exit(2, killed(SIGSEGV));  // an old one
                   driver.ack_all();
                   driver.advance(seconds{4});
                   driver.settle_upgrade();
                   driver.advance(seconds{60});
                 }});
  all.push_back({"a fleet upgrade that fails", restless(), [](Driver& driver) {
                   driver.start();
                   driver.ack_all();
                   driver.happen(event::Upgrade{false, true});
                   driver.ack_all();
                   driver.advance(seconds{6});  // proved, the rest follows
                   for (int death = 0; death < 3; ++death) {
                     if (driver.in(WorkerState::kStarting).empty()) {
                       driver.advance(seconds{4});
                     }
                     if (!driver.in(WorkerState::kStarting).empty()) {
                       driver.exit(driver.in(WorkerState::kStarting).back(), exited(3));
                     }
                   }
                   driver.advance(seconds{10});
                   driver.settle_upgrade();
                   driver.happen(event::RollBack{});
                   driver.settle_upgrade();
                 }});
  all.push_back({"ACKs that do not come", restless(), [](Driver& driver) {
                   driver.start();
                   driver.ack(2);
                   driver.advance(seconds{100});
                   driver.advance(seconds{100});
                   driver.exit_stopping();
                   driver.advance(seconds{100});
                   driver.happen(event::Quit{});
                 }});
  Config paced = by_timer(4);
  paced.seconds = seconds{2};
  paced.give_up = 5;
  paced.max_upgrade_additional = 1;
  all.push_back({"timers, pacing and giving up", paced, [](Driver& driver) {
                   driver.start();
                   driver.advance(seconds{3});
                   driver.happen(event::SetNumber{6});
                   driver.advance(seconds{5});
                   driver.happen(event::Upgrade{});
                   driver.advance(seconds{20});
                   driver.exit_stopping();
                   driver.advance(seconds{20});
                   driver.settle_upgrade();
                   driver.refuse_spawn = [](const Spawn&) { return "fork: no"; };
                   driver.exit(driver.in(WorkerState::kReady).front(), exited(1));
                   driver.advance(minutes{3});
                   driver.refuse_spawn = nullptr;
                   driver.happen(event::SetNumber{3});
                   driver.advance(seconds{30});
                 }});
  return all;
}

TEST(PoolRestore, GoesOnAsBeforeFromEveryStepOfALife) {
  for (const Scenario& scenario : scenarios()) {
    SCOPED_TRACE(scenario.name);
    Driver undisturbed(scenario.config);
    scenario.live(undisturbed);
    const Lines wanted = without_repeats(undisturbed.everything());
    ASSERT_GT(undisturbed.steps(), 10u);
    for (std::size_t step = 0; step < undisturbed.steps(); ++step) {
      Driver restored(scenario.config);
      restored.restore_before_step = step;
      scenario.live(restored);
      ASSERT_EQ(without_repeats(restored.everything()), wanted) << "restored before step " << step;
      ASSERT_EQ(text(restored.pool().ledger()), text(undisturbed.pool().ledger())) << step;
    }
  }
}

TEST(PoolRestore, WakesUpAtOnceToSeeWhatWasWaitedFor) {
  Driver driver(manual(1));
  driver.start();
  driver.exit(1, exited(1));
  const auto wanted = driver.pool().next_deadline();
  ASSERT_TRUE(wanted.has_value());
  driver.restore();
  ASSERT_TRUE(driver.pool().next_deadline().has_value());
  EXPECT_LE(*driver.pool().next_deadline(), driver.now());
  driver.happen(event::TimerDue{});
  EXPECT_EQ(driver.pool().next_deadline(), wanted) << "the back-off goes on where it was";
}

TEST(PoolRestore, OfAStablePoolIsQuietAfterOneLook) {
  Driver driver(manual(3));
  driver.start();
  driver.ack_all();
  driver.take();
  driver.restore();
  driver.happen(event::TimerDue{});
  EXPECT_TRUE(driver.take().empty());
  EXPECT_EQ(driver.pool().next_deadline(), std::nullopt);
}

TEST(PoolRestore, NeverUsesAnEpochTwiceEvenWithALostLedger) {
  Driver driver(manual(3));
  driver.start();
  driver.ack_all();
  std::vector<Worker> workers;
  for (const Worker* worker : driver.pool().workers()) {
    workers.push_back(*worker);
  }
  Pool pool(manual(4), Ledger{}, workers);
  for (const Action& action : pool.step(event::TimerDue{}, driver.now())) {
    if (const auto* spawn = std::get_if<Spawn>(&action)) {
      EXPECT_EQ(text(spawn->worker), "4@3");
    }
  }
  EXPECT_EQ(pool.alive(), 4u);
}

// Two records of one slot: a master died before it had noted the older worker's end.
TEST(PoolRestore, FillsGapsBetweenSlotsAndTakesTheNewestRecordOfASlot) {
  Worker low;
  low.id = {Slot{4}, Epoch{9}};
  low.state = WorkerState::kReady;
  low.acked_at = Instant{};
  Worker twin = low;
  twin.id.epoch = Epoch{10};
  Pool pool(manual(3), Ledger{}, {low, twin});
  EXPECT_EQ(pool.alive(), 1u);
  Lines spawned;
  for (const Action& action : pool.step(event::TimerDue{}, Instant{seconds{5}})) {
    spawned.push_back(text(action));
  }
  EXPECT_THAT(spawned, ::testing::ElementsAre("spawn 11@0 v0", "spawn 12@1 v0"));
}

// Workers that ACK and die at once, a thousand times in ten seconds: the pause before the next one
// does not begin anew with each master.
TEST(PoolRestore, AThrottleOfQuickDeathsGoesOn) {
  for (const bool restored : {false, true}) {
    Driver driver(manual(1));
    driver.start();
    for (std::uint64_t epoch = 1; epoch <= 1000; ++epoch) {
      driver.ack(epoch);
      driver.exit(epoch, exited(1));
      ASSERT_NE(driver.find(epoch + 1), nullptr) << "started again at once";
    }
    driver.ack(1001);
    if (restored) {
      driver.restore();
    }
    driver.exit(1001, exited(1));
    EXPECT_EQ(driver.find(1002), nullptr) << "restored " << restored;
    driver.advance(seconds{1});
    EXPECT_NE(driver.find(1002), nullptr);
  }
}

}  // namespace
}  // namespace einhorn::pool::testing
