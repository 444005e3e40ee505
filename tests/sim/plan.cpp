#include "sim/plan.h"

#include <algorithm>
#include <array>
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

// What keeps workers honest. Short times: much has to happen in a few minutes.
pool::HealthRules make_health(Random& random) {
  pool::HealthRules rules;
  if (random.chance(500)) {
    rules.ping_timeout = random.pick<Duration>({seconds{5}, seconds{20}});
  }
  if (random.chance(400)) {
    rules.request_timeout = random.pick<Duration>({seconds{3}, seconds{30}});
  }
  if (random.chance(300)) {
    rules.dump_signal = SIGQUIT;
  }
  if (random.chance(500)) {
    pool::Limit& memory = rules.of(pool::Measure::kMemory);
    memory.soft = std::uint64_t{1} << random.between(22, 30);
    if (random.chance(400)) {
      memory.hard = *memory.soft * 4;
    }
    memory.times = static_cast<std::uint32_t>(random.between(1, 3));
  }
  if (random.chance(200)) {
    rules.of(pool::Measure::kCpu).soft = 80;
    rules.cpu_window = seconds{10};
  }
  rules.sample_interval = random.pick<Duration>({seconds{2}, milliseconds{500}});
  if (random.chance(300)) {
    rules.max_age = random.pick<Duration>({seconds{40}, minutes{3}});
  }
  if (random.chance(300)) {
    rules.max_requests = static_cast<std::uint64_t>(random.between(3, 30));
  }
  rules.max_recycling = static_cast<std::uint32_t>(random.between(1, 3));
  if (random.chance(300)) {
    rules.flapping = {static_cast<std::uint32_t>(random.between(2, 5)), minutes{1}, seconds{30}, 3};
  }
  return rules;
}

// --workers MIN:MAX, and queues that come and go.
void scale(Plan& plan, Random& random) {
  pool::Config& config = plan.config;
  config.workers_min = static_cast<std::uint32_t>(random.between(1, config.number));
  config.workers_max = config.number + static_cast<std::uint32_t>(random.between(1, 8));
  config.scale_up_after = random.pick<Duration>({seconds{1}, seconds{0}, seconds{3}});
  config.scale_down_after = random.pick<Duration>({seconds{30}, seconds{2}, seconds{5}});
  plan.listeners = std::max(plan.listeners, 1U);
  const auto times = random.between(2, 8);
  plan.blows.insert(plan.blows.end(), static_cast<std::size_t>(times), Blow::kLoad);
}

}  // namespace

void add_probes(Plan& plan, std::uint64_t seed) {
  plan.probe = std::array{"http", "command", "tcp"}.at(seed / 11 % 3);
  pool::ProbeRules& rules = plan.config.health.probe;
  rules.on = true;
  rules.interval = seconds{1 + seed / 33 % 4};
  rules.timeout = seconds{1 + seed / 132 % 3};
  rules.failures = static_cast<std::uint32_t>(1 + seed / 396 % 3);
  plan.behaviours.push_back(Behaviour::kStall);
}

Plan make_plan(Random& random) {
  Plan plan;
  plan.config = make_config(random);
  plan.listeners = static_cast<std::uint32_t>(random.between(0, 3));
  plan.command_as_fd = random.chance(150);
  plan.log_json = random.chance(200);
  plan.chaos = random.pick<Duration>({seconds{20}, seconds{60}, minutes{4}});
  plan.pause = random.pick<Duration>({milliseconds{30}, milliseconds{300}, seconds{2}});
  for (std::size_t i = 0; i < static_cast<std::size_t>(Blow::kLoad); ++i) {
    if (random.chance(500)) {
      const auto times = random.between(1, 4);
      plan.blows.insert(plan.blows.end(), static_cast<std::size_t>(times), static_cast<Blow>(i));
    }
  }
  plan.behaviours.assign(static_cast<std::size_t>(random.between(4, 30)), Behaviour::kHealthy);
  for (std::size_t i = 1; i < kPlainBehaviours; ++i) {
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
  // Not drawn, so that lives without them stay what they were.
  plan.cgroups = plan.behaviours.size() % 3 == 0;
  plan.capture = (plan.blows.size() + plan.behaviours.size()) % 4 == 0;
  if (plan.capture) {
    // Each worker's pipes are two messages more to the guard; the real socket takes 550 at least.
    constexpr std::size_t kLeastPackets = 400;
    plan.packets = std::max(plan.packets, kLeastPackets);
  }
  plan.agent = (plan.blows.size() + plan.behaviours.size()) % 3 == 0;
  if (random.chance(300)) {
    plan.config.health = make_health(random);
    for (const Behaviour wrong : {Behaviour::kStall, Behaviour::kSlow, Behaviour::kLeak}) {
      plan.behaviours.insert(plan.behaviours.end(), static_cast<std::size_t>(random.below(3)),
                             wrong);
    }
  }
  if (random.chance(200)) {
    scale(plan, random);
  }
  if ((plan.blows.size() * 3 + plan.behaviours.size()) % 4 == 1) {
    plan.hooks = static_cast<unsigned>(1 + plan.behaviours.size() * 7 + plan.blows.size()) % 64;
    plan.config.hook_before_start = (plan.hooks & 1U) != 0;
    plan.config.hook_before_stop = (plan.hooks & 4U) != 0;
  }
  return plan;
}

}  // namespace einhorn::sim
