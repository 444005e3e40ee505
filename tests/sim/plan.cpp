#include "sim/plan.h"

#include <csignal>

namespace einhorn::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

pool::Config make_config(Random& random) {
  pool::Config config;
  config.number = static_cast<std::uint32_t>(random.chance(100) ? random.between(13, 40)
                                                                : random.between(1, 8));
  config.ack_mode = random.pick<pool::AckMode>(
      {pool::AckMode::kTimer, pool::AckMode::kManual, pool::AckMode::kNotify});
  config.ack_delay = random.pick<Duration>({seconds{1}, seconds{0}, milliseconds{250}, seconds{5}});
  config.ack_timeout = random.pick<Duration>({seconds{300}, seconds{20}, seconds{90}});
  if (random.chance(300)) {
    config.seconds = random.pick<Duration>({seconds{1}, milliseconds{100}, seconds{3}});
  }
  config.max_unacked = static_cast<std::uint32_t>(random.between(1, 4));
  config.max_unacked_given = random.chance(400);
  if (random.chance(300)) {
    config.max_upgrade_additional = static_cast<std::uint32_t>(random.between(0, 3));
  }
  if (random.chance(400)) {
    config.signal_timeout = random.pick<Duration>({seconds{10}, milliseconds{500}, minutes{2}});
  }
  if (random.chance(200)) {
    config.drain_timeout = random.pick<Duration>({seconds{5}, minutes{1}});
  }
  config.stop_signal = random.chance(800) ? SIGUSR2 : SIGTERM;
  config.give_up = random.chance(150) ? static_cast<std::uint32_t>(random.between(3, 10)) : 0;
  config.canary = static_cast<std::uint32_t>(random.between(0, 3));
  config.canary_seconds = random.pick<Duration>({seconds{0}, seconds{0}, seconds{2}, seconds{15}});
  config.upgrade_failures = static_cast<std::uint32_t>(random.between(0, 4));
  if (random.chance(300)) {
    config.upgrade_timeout = random.pick<Duration>({seconds{30}, minutes{5}});
  }
  return config;
}

}  // namespace

Plan make_plan(Random& random) {
  Plan plan;
  plan.config = make_config(random);
  plan.listeners = static_cast<std::uint32_t>(random.between(0, 3));
  plan.command_as_fd = random.chance(150);
  plan.log_json = random.chance(200);
  plan.chaos = random.pick<Duration>({seconds{20}, seconds{60}, minutes{4}});
  plan.pause = random.pick<Duration>({milliseconds{30}, milliseconds{300}, seconds{2}});
  for (std::size_t i = 0; i < kBlows; ++i) {
    if (random.chance(500)) {
      const auto times = random.between(1, 4);
      plan.blows.insert(plan.blows.end(), static_cast<std::size_t>(times), static_cast<Blow>(i));
    }
  }
  plan.behaviours.assign(static_cast<std::size_t>(random.between(4, 30)), Behaviour::kHealthy);
  for (std::size_t i = 1; i < kBehaviours; ++i) {
    if (random.chance(350)) {
      const auto times = random.between(1, 3);
      plan.behaviours.insert(plan.behaviours.end(), static_cast<std::size_t>(times),
                             static_cast<Behaviour>(i));
    }
  }
  plan.bad_versions = random.chance(500) ? 300 : 0;
  plan.short_transfers = random.chance(300) ? 300 : 0;
  plan.dead_on_return = random.chance(250) ? 60 : 0;
  plan.stage_failures = random.chance(250) ? 60 : 0;
  plan.bad_renewals = random.chance(300) ? 400 : 0;
  plan.log_full = random.chance(200) ? 50 : 0;
  plan.torn_writes = random.chance(500);
  plan.bad_checks = random.chance(300);
  plan.packets = static_cast<std::size_t>(random.chance(250) ? random.between(60, 120) : 1000);
  plan.last_pid = static_cast<Pid>(random.chance(300) ? 1500 : 32768);
  return plan;
}

}  // namespace einhorn::sim
