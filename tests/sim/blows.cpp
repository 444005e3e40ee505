// What happens to a simulated pool from outside, and the end of it.
#include <algorithm>
#include <csignal>

#include "sim/simulation.h"

namespace einhorn::sim {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Duration kSettleWithin = minutes{40};
constexpr Duration kStopWithin = minutes{10};

}  // namespace

void Simulation::plan_blow() {
  if (world_.plan.blows.empty()) {
    return;
  }
  const Duration pause = world_.random.skewed(Duration::zero(), 4 * world_.plan.pause);
  world_.after(pause, [this] {
    if (world_.faults) {
      blow(world_.random.pick(world_.plan.blows));
      plan_blow();
    }
  });
}

void Simulation::blow(Blow kind) {
  Random& random = world_.random;
  const auto for_a_while = [this, &random](bool& what) {
    what = true;
    world_.after(random.skewed(milliseconds{1}, seconds{8}), [&what] { what = false; });
  };
  switch (kind) {
    case Blow::kRequest:
    case Blow::kBadRequest:
    case Blow::kVanish:
    case Blow::kStall:
    case Blow::kFlood:
    case Blow::kUpgrade:
      blow_at_requests(kind);
      return;
    case Blow::kSignal:
      guard_.on_signal(random.pick<int>({SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1, SIGALRM}));
      return;
    case Blow::kKillWorker: {
      const std::vector<ProcessPtr> living = workers_.living();
      if (const ProcessPtr reader = readers_.any(); reader != nullptr && random.chance(400)) {
        world_.note("fault", "kill -9 of reader " + std::to_string(reader->pid));
        world_.end(reader, {2, SIGKILL});
        return;
      }
      if (const ProcessPtr supervisor = supervisors_.any();
          supervisor != nullptr && random.chance(500)) {
        world_.note("fault", "kill -9 of supervisor " + std::to_string(supervisor->pid));
        world_.end(supervisor, {2, SIGKILL});
        return;
      }
      if (const ProcessPtr prober = probers_.any(); prober != nullptr && random.chance(400)) {
        world_.note("fault", "kill -9 of prober " + std::to_string(prober->pid));
        world_.end(prober, {2, SIGKILL});
        return;
      }
      if (!living.empty()) {
        const ProcessPtr worker = random.pick(living);
        world_.note("fault", "kill -9 of worker " + std::to_string(worker->pid));
        world_.end(worker, {2, SIGKILL});
      }
      return;
    }
    case Blow::kKillMaster:
      if (MasterProcess* master = any_master();
          master != nullptr && !master->running() && may_kill_master()) {
        world_.note("fault", "kill -9 of master " + std::to_string(master->process()->pid));
        kill(*master, {2, SIGKILL});
      }
      return;
    case Blow::kStrikeMaster:
      if (MasterProcess* master = any_master(); master != nullptr && may_kill_master()) {
        master->kernel().strike_in(1 + random.below(1U << random.below(10)));
      }
      return;
    case Blow::kClockJump:
      world_.wall.nanoseconds += random.between(-5'000'000'000'000, 5'000'000'000'000);
      return;
    case Blow::kSnapshotFull:
      for_a_while(world_.snapshot_full);
      return;
    case Blow::kNoDescriptors:
      for_a_while(world_.no_descriptors);
      return;
    case Blow::kNoProcesses:
      for_a_while(world_.no_processes);
      return;
    case Blow::kPing: {
      const std::vector<ProcessPtr> living = workers_.living();
      if (!living.empty()) {
        workers_.ping(random.pick(living));
      }
      return;
    }
    case Blow::kKillGuard:
      if (may_kill_guard()) {
        guard_.kill();
      }
      return;
    case Blow::kStrikeGuard:
      if (may_kill_guard()) {
        guard_.strike_in(1 + random.below(1U << random.below(9)));
      }
      return;
    case Blow::kNewProgram:
      ++world_.program;
      return;
    case Blow::kSubscribe:
      subscribers_.arrive();
      return;
    case Blow::kLoad:
      world_.queued = random.chance(400)
                          ? 0
                          : static_cast<std::uint32_t>(1 + random.below(1U << random.below(8)));
      world_.note("load", std::to_string(world_.queued) + " connections wait");
      return;
  }
}

// The death of both is the end of the pool: rarely wanted, as such a life has nothing more to show.
bool Simulation::may_kill_master() { return guard_.alive() || world_.random.chance(2); }

bool Simulation::may_kill_guard() {
  return guard_.alive() && (acting() != nullptr || world_.random.chance(2));
}

void Simulation::blow_at_requests(Blow kind) {
  Random& random = world_.random;
  switch (kind) {
    case Blow::kRequest:
      clients_.random_requests(1 + random.below(3), Duration::zero());
      return;
    case Blow::kBadRequest:
      if (random.chance(400)) {
        clients_.stranger();
      } else {
        clients_.garbage();
      }
      return;
    case Blow::kVanish:
      clients_.vanish();
      return;
    case Blow::kStall:
      clients_.random_requests(1 + random.below(20), random.duration(seconds{1}, seconds{60}));
      return;
    case Blow::kFlood:
      clients_.random_requests(100 + random.below(100), Duration::zero());
      return;
    case Blow::kUpgrade:
      clients_.upgrade();
      return;
    default:
      return;
  }
}

// Nothing bad happens any more.
void Simulation::calm() {
  world_.note("simulation", "calm");
  world_.faults = false;
  world_.snapshot_full = false;
  world_.no_descriptors = false;
  world_.no_processes = false;
  world_.queued = 0;
  for (const auto& master : masters_) {
    master->kernel().strike_in(0);
  }
  guard_.strike_in(0);
  workers_.calm();
  subscribers_.clear();
  say_number();
}

// A pool that has given up goes on when it is told how many workers there shall be.
void Simulation::say_number() {
  const std::uint32_t number = world_.plan.config.number;
  clients_.request("set_workers", "\"" + std::to_string(number + 1) + "\"");
  world_.after(seconds{1}, [this, number] {
    clients_.request("set_workers", "\"" + std::to_string(number) + "\"");
  });
}

// The target state has to come within a bound.
void Simulation::settle() {
  const Instant calm_at = world_.now();
  const Instant until = calm_at + kSettleWithin;
  const auto settled = [this] {
    MasterProcess* master = acting();
    return master != nullptr && guard_.alive() && guard_.has_acting_master() &&
           !guard_.handing_off() && !guard_.has_mail() && Invariants::stable(*master->pool()) &&
           clients_.unanswered().empty();
  };
  // Workers from before, which never ACK, may be the end of its patience once more, and only once.
  bool may_give_up = world_.plan.config.give_up > 0;
  while (!world_.over && world_.now() < until) {
    run_until(world_.now() + seconds{5});
    if (world_.over || settled()) {
      break;
    }
    const MasterProcess* master = acting();
    if (may_give_up && world_.now() > calm_at + seconds{5} && master != nullptr &&
        master->pool() != nullptr &&
        master->pool()->ledger().deaths_before_ack >= world_.plan.config.give_up) {
      may_give_up = false;
      say_number();
    }
  }
  if (lost_) {
    return;
  }
  if (world_.over) {
    world_.expect(world_.plan.config.give_up > 0 && guard_.word() == 1, "settles",
                  "the pool left by itself with " + std::to_string(guard_.word()));
    return;
  }
  world_.expect(guard_.alive(), "settles", "there is no guard");
  MasterProcess* master = acting();
  world_.expect(master != nullptr && master->pool() != nullptr, "settles", "there is no master");
  const pool::Pool& pool = *master->pool();
  const pool::Ledger& ledger = pool.ledger();
  world_.expect(Invariants::stable(pool) && !guard_.handing_off(), "settles",
                std::to_string(pool.modern_ready()) + " of " +
                    std::to_string(pool.config().number) + " workers are ready, " +
                    std::to_string(pool.starting()) + " starting, " + std::to_string(pool.alive()) +
                    " alive, " + std::to_string(ledger.deaths_before_ack) + " deaths, " +
                    (ledger.upgrade ? ledger.upgrade->proved ? "upgrading" : "trying an upgrade"
                                    : "not upgrading") +
                    (pool.next_deadline() ? ", waiting" : "") +
                    (guard_.handing_off() ? ", handing off" : "") + ", " +
                    std::to_string(master->kernel().open_of(FileKind::kStream)) + " clients, " +
                    std::to_string(command_->waiting.size()) + " not accepted");
  const int watched = master->kernel().open_of(FileKind::kNotify);
  world_.expect(watched <= static_cast<int>(workers_.living().size()), "settles",
                std::to_string(watched) + " notify descriptors are kept for " +
                    std::to_string(workers_.living().size()) + " workers");
  const std::string waiting = clients_.unanswered();
  world_.expect(waiting.empty(), "answered-once", waiting);
}

// With nothing to do the master does nothing.
void Simulation::rest() {
  clients_.clear();
  run_until(world_.now() + minutes{3});
  MasterProcess* master = acting();
  world_.expect(master != nullptr, "settles", "the master is gone");
  world_.expect(master->zygotes() <= 1, "bounded",
                std::to_string(master->zygotes()) + " zygotes for one version");
  if (world_.plan.config.health.watches()) {
    const ProcessPtr stalled = workers_.stall_one();
    const pool::ProbeRules& probe = world_.plan.config.health.probe;
    run_until(world_.now() + probe.interval + probe.timeout / 2);
    if (const ProcessPtr prober = probers_.any()) {
      world_.note("simulation", "kill -9 of prober " + std::to_string(prober->pid));
      world_.end(prober, {2, SIGKILL});  // with a probe under way, mostly
    }
    run_until(world_.now() + minutes{4});  // it is told, and looks
    world_.expect(acting() == master, "settles", "the master is gone");
    const bool probed = !world_.plan.probe.empty() && world_.plan.probe != "tcp";
    world_.expect(!probed || stalled == nullptr || stalled->dead, "honest",
                  "a worker that answers no probe was not taken out");
    return;
  }
  if (world_.plan.config.workers_max > 0) {
    return;  // it looks at its sockets for ever
  }
  const std::uint64_t turns = master->turns();
  run_until(world_.now() + hours{2});
  const std::int64_t watchdog = guard_.manager_watchdog_us();
  std::uint64_t most = watchdog > 0 ? hours{2} / (kWatchdog / 2) + 1 : 0;
  const std::vector<ProcessPtr> living = workers_.living();
  if (world_.plan.cgroups &&
      std::ranges::any_of(living, [](const ProcessPtr& worker) { return !worker->known; })) {
    most += 121;  // each minute, whether the group of one that nobody knows is empty
  }
  world_.expect(acting() == master && master->turns() <= turns + most, "quiet",
                "an idle master was turned " + std::to_string(master->turns() - turns) + " times");
  if (watchdog >= 0) {
    world_.expect(guard_.manager_knows() == "READY=1", "manager",
                  "of a pool that serves it knows " + guard_.manager_knows());
  }
  world_.expect(watchdog <= 0 || world_.now() - guard_.watchdog_at() <= kWatchdog, "manager",
                "its watchdog is not fed");
}

void Simulation::stop() {
  const int signal = world_.random.pick<int>({SIGTERM, SIGINT, SIGUSR2, SIGQUIT});
  world_.note("simulation", "stops it with signal " + std::to_string(signal));
  guard_.on_signal(signal);
  run_until(world_.now() + kStopWithin);
  world_.expect(world_.over, "stops", "the pool does not stop");
  world_.expect(guard_.word() == (signal == SIGQUIT ? 1 : 0), "stops",
                "the pool left with " + std::to_string(guard_.word()));
  if (signal != SIGQUIT) {
    for (const ProcessPtr& worker : workers_.living()) {
      world_.expect(!worker->known, "stops", "a worker was left behind");
    }
  }
  const bool inhabited =
      std::ranges::any_of(world_.groups, [](const auto& group) { return group.second > 0; });
  world_.expect(inhabited || world_.groups.empty() || guard_.word() != 0, "groups",
                std::to_string(world_.groups.size()) + " control groups are left");
  world_.forget_events();  // some hold an end of a connection
  workers_.clear();
  zygotes_.clear();
  readers_.clear();
  supervisors_.clear();
  probers_.clear();
  hooks_.clear();
  command_->waiting.clear();
  for (const FileKind kind :
       {FileKind::kStream, FileKind::kService, FileKind::kPacket, FileKind::kMemory, FileKind::kLog,
        FileKind::kPidfd, FileKind::kProgram, FileKind::kOutput, FileKind::kNotify,
        FileKind::kForm}) {
    world_.expect(world_.census.of(kind) == 0, "ledger",
                  std::to_string(world_.census.of(kind)) + " of " + std::string(name(kind)) +
                      " are still open");
  }
}

}  // namespace einhorn::sim
