// Scaling by the queue: its rules one by one, and a little world of requests in which it has to
// find the right number without going to and fro.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include "pool/scaling.h"
#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

constexpr Duration kSample = milliseconds{250};

Config range(std::uint32_t least, std::uint32_t most) {
  Config config = manual(least);
  config.workers_min = least;
  config.workers_max = most;
  return config;
}

// Feeds a Scaling with samples.
class Samples {
 public:
  explicit Samples(Config config) : config_(config) { seen.number = config.number; }

  // So many samples; the first decision that comes.
  std::optional<Scaling::Decision> feed(Duration time, std::uint64_t queued) {
    for (Duration passed{0}; passed < time; passed += kSample) {
      now_ += kSample;
      seen.queued = queued;
      if (auto decision = scaling_.decide(config_, seen, now_)) {
        seen.number = decision->number;
        return decision;
      }
    }
    return std::nullopt;
  }

  Scaling::Seen seen;

 private:
  Config config_;
  Scaling scaling_;
  Instant now_{seconds{1000}};
};

TEST(Scaling, NothingHappensWithoutARange) {
  Samples samples(manual(3));
  EXPECT_FALSE(samples.feed(minutes{10}, 50));
  EXPECT_FALSE(samples.feed(minutes{10}, 0));
}

TEST(Scaling, AQueueThatStaysBringsWorkersByItsLength) {
  Samples samples(range(8, 16));
  EXPECT_FALSE(samples.feed(milliseconds{900}, 5)) << "not yet for a second";
  const auto one = samples.feed(seconds{1}, 5);
  ASSERT_TRUE(one);
  EXPECT_EQ(one->number, 9U) << "less than a connection a worker waits";
  EXPECT_EQ(one->reason, "5 connections have to wait, for 1 s now");
  const auto half = samples.feed(seconds{2}, 100);
  ASSERT_TRUE(half);
  EXPECT_EQ(half->number, 13U);
  EXPECT_EQ(samples.feed(seconds{2}, 100)->number, 16U) << "never beyond the end of the range";
  EXPECT_FALSE(samples.feed(minutes{5}, 1000));
}

TEST(Scaling, AQueueForAMomentIsNone) {
  Samples samples(range(2, 8));
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(samples.feed(milliseconds{750}, 9));
    EXPECT_FALSE(samples.feed(milliseconds{250}, 0));
  }
}

TEST(Scaling, WhoIsStartingIsWaitedFor) {
  Samples samples(range(2, 8));
  samples.seen.starting = 1;
  EXPECT_FALSE(samples.feed(minutes{1}, 9));
  samples.seen.starting = 0;
  EXPECT_FALSE(samples.feed(milliseconds{750}, 9)) << "time to work the queue off";
  EXPECT_TRUE(samples.feed(seconds{1}, 9));
}

TEST(Scaling, OneAtATimeLeavesWhenNothingWaits) {
  Config config = range(2, 8);
  config.number = 8;
  Samples samples(config);
  const auto first = samples.feed(seconds{31}, 0);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->number, 7U);
  EXPECT_EQ(first->reason, "nothing has had to wait for 30 s");
  EXPECT_EQ(samples.feed(seconds{31}, 0)->number, 6U);
  while (samples.seen.number > 2) {
    ASSERT_TRUE(samples.feed(seconds{31}, 0));
  }
  EXPECT_FALSE(samples.feed(minutes{30}, 0)) << "never below the beginning of the range";
}

TEST(Scaling, NobodyLeavesWhoseWorkTheOthersHaveNoTimeFor) {
  Config config = range(2, 8);
  config.number = 4;
  Samples samples(config);
  samples.seen.cores = 2.2;  // 3 workers would be 73 % busy
  EXPECT_FALSE(samples.feed(minutes{10}, 0));
  samples.seen.cores = 2.0;
  EXPECT_TRUE(samples.feed(minutes{2}, 0));
}

TEST(Scaling, NobodyIsTakenAwayDuringAnUpgrade) {
  Config config = range(2, 8);
  config.number = 4;
  Samples samples(config);
  samples.seen.upgrading = true;
  EXPECT_FALSE(samples.feed(minutes{10}, 0));
  EXPECT_TRUE(samples.feed(seconds{2}, 9)) << "but who is needed comes";
}

TEST(Scaling, ARemovalThatWasAMistakeMakesTheNextOneWaitLonger) {
  Config config = range(2, 8);
  config.number = 4;
  Samples samples(config);
  Duration last{0};
  for (const Duration expected : {seconds{30}, seconds{60}, seconds{120}, seconds{240}}) {
    Duration waited{0};
    while (!samples.feed(seconds{1}, 0)) {
      waited += seconds{1};
      ASSERT_LT(waited, minutes{10});
    }
    EXPECT_NEAR(to_seconds(waited), to_seconds(expected), 2);
    EXPECT_GT(waited, last);
    last = waited;
    ASSERT_TRUE(samples.feed(seconds{2}, 3)) << "and back";
  }
}

TEST(Scaling, ANumberOutsideOfTheRangeIsBroughtIn) {
  Samples samples(range(2, 8));
  samples.seen.number = 20;
  EXPECT_EQ(samples.feed(seconds{1}, 0)->number, 8U);
}

TEST(Scaling, ThePoolTurnsItIntoWorkers) {
  Driver driver(range(2, 4));
  driver.start();
  driver.ack_all();
  for (int i = 0; i < 6; ++i) {
    driver.advance(kSample);
    driver.happen(event::LoadSeen{7, std::nullopt});
  }
  EXPECT_EQ(driver.pool().config().number, 3U);
  EXPECT_EQ(driver.pool().alive(), 3U);
}

// --- a world of requests ------------------------------------------------------------------------
//
// Requests come at a rate that a test gives; each keeps a worker busy for `service`, of which
// `cpu` is work and the rest waiting. Workers need `start` to come up, and finish what they have
// begun before they leave. Everything in steps of 10 ms, without any chance.

struct World {
  std::function<double(double)> rate;  // requests a second, at that second
  double service = 0.1;
  double cpu = 1;  // of the service
  Duration start = milliseconds{500};
  double length = 1200;  // seconds
};

struct Outcome {
  double worst_queue = 0;
  double last_queue = 0;
  double worker_seconds = 0;
  int changes = 0;
  int turns = 0;       // from up to down or down to up
  int late_turns = 0;  // in the second half
  std::uint32_t most = 0;
  std::uint32_t last = 0;
  double queued_seconds = 0;  // while somebody waited
};

Outcome run(const Config& config, const World& world) {
  constexpr double kStep = 0.01;
  Scaling scaling;
  Outcome outcome;
  std::uint32_t number = config.number;
  double ready = number;
  std::vector<double> starting;  // when they are up
  double queue = 0;
  double busy_cpu = 0;
  double since_cpu = 0;
  int last_direction = 0;
  for (int step = 0; step * kStep < world.length; ++step) {
    const double t = step * kStep;
    for (auto it = starting.begin(); it != starting.end();) {
      it = *it <= t ? (ready += 1, starting.erase(it)) : it + 1;
    }
    const double capacity = ready / world.service * kStep;
    const double wanted = queue + world.rate(t) * kStep;
    const double served = std::min(capacity, wanted);
    queue = wanted - served;
    busy_cpu += served * world.service * world.cpu;
    outcome.worst_queue = std::max(outcome.worst_queue, queue);
    outcome.queued_seconds += queue >= 1 ? kStep : 0;
    outcome.worker_seconds += ready * kStep;
    if (step % 25 != 0) {
      continue;
    }
    Scaling::Seen seen;
    seen.queued = static_cast<std::uint64_t>(queue);
    if (step % 500 == 0) {
      if (t > since_cpu) {
        seen.cores = busy_cpu / (t - since_cpu);
      }
      busy_cpu = 0;
      since_cpu = t;
    }
    seen.number = number;
    seen.starting = static_cast<std::uint32_t>(starting.size());
    const auto decision = scaling.decide(config, seen, Instant{from_seconds(1000 + t)});
    if (!decision) {
      continue;
    }
    const int direction = decision->number > number ? 1 : -1;
    ++outcome.changes;
    if (last_direction != 0 && direction != last_direction) {
      ++outcome.turns;
      outcome.late_turns += t > world.length / 2 ? 1 : 0;
    }
    last_direction = direction;
    for (; number < decision->number; ++number) {
      starting.push_back(t + to_seconds(world.start));
    }
    ready -= number - decision->number;
    number = decision->number;
    outcome.most = std::max(outcome.most, number);
  }
  outcome.last = number;
  outcome.last_queue = queue;
  return outcome;
}

double requests(const World& world) {
  double sum = 0;
  constexpr double kStep = 0.01;
  for (int step = 0; step * kStep < world.length; ++step) {
    sum += world.rate(step * kStep) * kStep;
  }
  return sum;
}

TEST(ScalingWorld, AStepIsMetAndTheNumberStaysThere) {
  for (const double cpu : {1.0, 0.05}) {
    World world;
    world.rate = [](double t) { return t < 10 ? 15.0 : 95.0; };  // needs 9.5 workers
    world.cpu = cpu;
    const Outcome outcome = run(range(2, 16), world);
    EXPECT_GE(outcome.last, 10U);
    EXPECT_LE(outcome.most, 16U);
    EXPECT_LT(outcome.last_queue, 1);
    EXPECT_LT(outcome.worst_queue, 600) << "which is what comes within the seconds of scaling up";
    EXPECT_LE(outcome.late_turns, cpu > 0.5 ? 0 : 4);
  }
}

TEST(ScalingWorld, TheEndOfAStepBringsTheNumberDown) {
  World world;
  world.rate = [](double t) { return t < 300 ? 95.0 : 5.0; };
  const Outcome outcome = run(range(2, 16), world);
  EXPECT_EQ(outcome.last, 2U);
  EXPECT_LE(outcome.turns, 2);
  EXPECT_LT(outcome.worker_seconds, 16 * world.length * 0.6);
}

TEST(ScalingWorld, ARampIsFollowedUpAndDown) {
  World world;
  world.rate = [](double t) { return 10 + 130 * (t < 600 ? t : 1200 - t) / 600; };
  const Outcome outcome = run(range(2, 16), world);
  EXPECT_GE(outcome.most, 14U);
  EXPECT_LT(outcome.worst_queue, 60);
  EXPECT_LT(outcome.queued_seconds, world.length / 10);
  EXPECT_LE(outcome.turns, 6);
  EXPECT_LT(outcome.worker_seconds, 16 * world.length * 0.85);
}

TEST(ScalingWorld, BurstsAreWorkedOffAndNotRunAfter) {
  World world;  // two seconds of ten times as much, every minute
  world.rate = [](double t) { return std::fmod(t, 60) < 2 ? 150.0 : 15.0; };
  const Outcome outcome = run(range(2, 16), world);
  EXPECT_LT(outcome.last_queue, 1);
  EXPECT_LT(outcome.queued_seconds, world.length / 4);
  EXPECT_LE(outcome.late_turns, 6) << "the removals that were mistakes have taught it";
}

TEST(ScalingWorld, WorkersThatWaitForOthersDoNotComeAndGo) {
  World world;  // 6 are needed, whose CPU time would say that one is enough
  world.rate = [](double) { return 58.0; };
  world.cpu = 0.02;
  world.length = 4 * 3600;
  const Outcome outcome = run(range(2, 16), world);
  EXPECT_GE(outcome.last, 5U);
  EXPECT_LE(outcome.late_turns, 2 * 2 * 3600 / 600 + 2) << "once in ten minutes";
  EXPECT_LT(outcome.queued_seconds, world.length / 100);
}

TEST(ScalingWorld, SlowStartsAreNotAnsweredWithMoreStarts) {
  World world;
  world.rate = [](double t) { return t < 10 ? 15.0 : 55.0; };  // needs 5.5
  world.start = seconds{20};
  const Outcome outcome = run(range(2, 16), world);
  EXPECT_LT(outcome.last_queue, 1);
  EXPECT_LE(outcome.changes, 30);
  EXPECT_GT(requests(world), 0);
}

}  // namespace
}  // namespace einhorn::pool::testing
