#include "sim/invariants.h"

#include <algorithm>
#include <csignal>
#include <cstring>

#include "base/limits.h"

namespace einhorn::sim {
namespace {

using std::chrono::seconds;

constexpr Duration kLongestZombie = seconds{20};
constexpr Duration kLongestUnknown = seconds{180};
constexpr std::uint64_t kPersistedEvery = 8;  // turns
constexpr std::uint64_t kBoundsEvery = 8;     // of those
constexpr Duration kShortestPause = std::chrono::milliseconds{500};
constexpr Duration kKillAfterMissedAck = seconds{10};
constexpr Duration kProbeGrace = seconds{5};  // until a probe without an answer is given up
constexpr Duration kLate = seconds{1};        // more than any turn takes

std::string text(WorkerId id) {
  return "worker " + std::to_string(id.slot.value) + " of epoch " + std::to_string(id.epoch.value);
}

}  // namespace

bool Invariants::stable(const pool::Pool& pool) {
  const pool::Ledger& ledger = pool.ledger();
  const std::size_t number = pool.config().number;
  // One that is always about to replace somebody is as stable as it gets.
  const pool::HealthRules& rules = pool.config().health;
  const std::size_t spare = rules.watches() ? 2 * std::size_t{rules.max_recycling} : 0;
  const std::vector<const pool::Worker*> workers = pool.workers();
  const bool asked = std::ranges::any_of(workers, [](const pool::Worker* worker) {
    return worker->ailment == pool::Ailment::kAsked;  // stop_worker: its replacement is awaited
  });
  return !asked && ledger.respawn && !ledger.failed && !ledger.upgrade && pool.paused() == 0 &&
         pool.alive() >= number && pool.alive() <= number + spare && pool.modern_ready() >= number;
}

// What the next master would read: from the guard, or, while there is none, from the master.
const wire::Snapshot& Invariants::read_snapshot(const SimulatedKernel* master) {
  auto memory = std::dynamic_pointer_cast<Memory>(guard_.stored("snapshot"));
  if (!guard_.alive() && master != nullptr) {
    memory = std::dynamic_pointer_cast<Memory>(master->newest(FileKind::kMemory));
  }
  world_.expect(memory != nullptr, "ownership", "nobody has the snapshot");
  const std::pair at(memory->number(), memory->writes());
  if (at == read_at_) {
    return read_;
  }
  Result<wire::Snapshot> read = wire::decode_snapshot(memory->content());
  world_.expect(read.has_value(), "persisted",
                "the snapshot can't be read: " + (read ? "" : read.error().message()));
  read_ = std::move(*read);
  read_at_ = at;
  read_fresh_ = memory->fresh;
  return read_;
}

void Invariants::on_spawn(SimulatedKernel& by, const os::SpawnSpec& spec, WorkerId id,
                          const pool::Pool* pool) {
  on_act(by.process());
  forget_lost_successors(by.process());
  world_.expect(epochs_.emplace(id.epoch.value, by.process()).second, "identity",
                "epoch " + std::to_string(id.epoch.value) + " was used twice");
  if (!ever_.insert(id.epoch.value).second) {
    reused_.insert(id.epoch.value);
  }
  for (const auto& [pid, process] : world_.processes()) {
    world_.expect(process->kind != ProcessKind::kWorker || process->dead || !process->known ||
                      process->worker.slot != id.slot,
                  "identity", "slot " + std::to_string(id.slot.value) + " has a living worker");
  }
  // A program that is intercepted gets its sockets when it binds.
  world_.expect(spec.descriptors.size() == (world_.plan.intercept ? 0 : world_.plan.listeners) &&
                    spec.intercept == world_.plan.intercept,
                "ownership",
                "a worker gets " + std::to_string(spec.descriptors.size()) + " sockets");
  for (const os::DescriptorMove& move : spec.descriptors) {
    const auto service = std::dynamic_pointer_cast<Service>(by.file(move.from));
    world_.expect(service != nullptr && static_cast<int>(service->index) + 3 == move.to,
                  "ownership", "a worker gets the wrong socket as " + std::to_string(move.to));
  }
  if (pool == nullptr) {
    return;
  }
  const pool::Config& config = pool->config();
  const pool::Ledger& ledger = pool->ledger();
  const pool::Worker* worker = pool->find(id);
  world_.expect(worker != nullptr && worker->state == pool::WorkerState::kSpawning, "no-stranger",
                text(id) + " is started, and the pool does not know it");
  const bool first_fill = id.epoch.value <= world_.plan.config.number;
  const bool fleet = ledger.upgrade && !ledger.upgrade->smooth;
  if (config.max_unacked_given && !first_fill && !fleet && worker->version == ledger.version) {
    world_.expect(pool->starting() <= config.max_unacked, "pacing",
                  std::to_string(pool->starting()) + " workers are starting, and max_unacked is " +
                      std::to_string(config.max_unacked));
  }
  check_pause(by, *pool);
  check_canary(*pool, worker->version);
  last_starter_ = by.process()->pid;
  last_start_ = world_.now();
}

// Where nothing is started without a pause while the first workers die.
void Invariants::check_pause(const SimulatedKernel& by, const pool::Pool& pool) {
  const pool::Config& config = pool.config();
  const pool::Ledger& ledger = pool.ledger();
  if (config.hook_before_start) {
    return;  // the pause is between the hooks, and each takes its time
  }
  if (ledger.deaths_before_ack == 0 || ledger.burst_left > 0 ||
      !(config.max_unacked_given || config.seconds) ||
      (ledger.upgrade && !ledger.upgrade->smooth) || last_starter_ != by.process()->pid) {
    return;
  }
  const Duration least = std::min(kShortestPause, config.seconds.value_or(kShortestPause));
  world_.expect(world_.now() - last_start_ >= least, "back-off",
                std::to_string(ledger.deaths_before_ack) +
                    " workers died before their ACK, and the next one is started at once");
}

// How it began counts, and the option may be another one by the time that its first worker starts.
void Invariants::note_canaries(const pool::Pool& pool) {
  const pool::UpgradeProgress& upgrade = *pool.ledger().upgrade;
  const bool wanted = upgrade.rollback && pool.config().canary > 0;
  canaries_.emplace(upgrade.to, wanted ? canaries(pool) : 0);
}

std::size_t Invariants::canaries(const pool::Pool& pool) {
  return std::clamp<std::size_t>(pool.config().canary, 1, pool.config().number);
}

void Invariants::check_canary(const pool::Pool& pool, Version version) {
  const auto& upgrade = pool.ledger().upgrade;
  if (!upgrade || upgrade->going_back || upgrade->to != version) {
    return;
  }
  note_canaries(pool);
  const std::size_t begun = canaries_.at(version);
  if (begun == 0 || upgrade->failures > 0 || pool.modern_ready() > 0 ||
      seen_ready_.contains(version)) {
    return;
  }
  world_.expect(pool.starting() <= std::max(begun, canaries(pool)), "canary",
                std::to_string(pool.starting()) + " workers of version " +
                    std::to_string(version.value) + " are starting, and none has been ready");
}

void Invariants::check_order(const pool::Pool& pool, const pool::Worker& stopped) {
  for (const pool::Worker* worker : pool.workers()) {
    world_.expect(worker->state != pool::WorkerState::kReady ||
                      worker->version != stopped.version || stopped.id.epoch < worker->id.epoch,
                  "oldest-first",
                  text(stopped.id) + " is stopped before the older " + text(worker->id) +
                      (worker->recycling ? ", which is being replaced" : "") + " (" +
                      std::to_string(pool.modern_ready()) + " modern of " +
                      std::to_string(pool.ready()) + " ready, " + std::to_string(pool.starting()) +
                      " starting, " + std::to_string(pool.config().number) + " wanted)");
  }
}

void Invariants::check_acks(const pool::Pool& pool, const std::vector<ProcessPtr>& living) {
  if (pool.modern_ready() > 0) {
    seen_ready_.insert(pool.ledger().version);
  }
  if (pool.config().ack_mode == pool::AckMode::kTimer) {
    return;
  }
  for (const ProcessPtr& process : living) {
    const pool::Worker* worker = process->known ? pool.find(process->worker) : nullptr;
    // Of one that is gone nobody can say whose helper it was.
    const bool helped = std::ranges::any_of(process->spoken_for_by, [](const auto& other) {
      const ProcessPtr who = other.lock();
      return who == nullptr || who->dead;
    });
    world_.expect(worker == nullptr || !worker->acked() || process->said_up || helped ||
                      (world_.plan.intercept && reused(worker->id.epoch)),
                  "own-ack",
                  text(process->worker) + " is taken for one that is up, and never said so");
  }
}

// What became due only in this turn (options may change) has time until the next one.
void Invariants::expect_in_time(std::uint64_t key, std::optional<Instant> due,
                                const std::string& what) {
  if (!due || world_.now() < *due) {
    overdue_.erase(key);
    return;
  }
  const Instant since = overdue_.emplace(key, world_.now()).first->second;
  world_.expect(world_.now() <= since + kLate, "in-time", what);
}

void Invariants::check_in_time(const pool::Pool& pool) {
  const pool::Config& config = pool.config();
  const pool::Ledger& ledger = pool.ledger();
  for (const pool::Worker* worker : pool.workers()) {
    if (!worker->stopping() || !worker->last_signaled_at) {
      continue;
    }
    std::optional<Duration> patience = config.signal_timeout;
    if (!patience && (worker->missed_ack || worker->condemned)) {
      patience = kKillAfterMissedAck;
    }
    if (config.drain_timeout && worker->version != ledger.version) {
      patience = std::min(patience.value_or(*config.drain_timeout), *config.drain_timeout);
    }
    std::optional<Instant> due;
    if (patience && !worker->signaled.has(SIGKILL)) {
      due = *worker->last_signaled_at + *patience;
    }
    expect_in_time(worker->id.epoch.value, due,
                   text(worker->id) + " did not stop in its time and was not killed");
  }
  if (!ledger.upgrade || !ledger.upgrade->rollback) {
    overdue_.erase(0);
    return;
  }
  std::optional<Instant> over;
  if (config.upgrade_timeout) {
    over = ledger.upgrade->started_at + *config.upgrade_timeout;
  }
  expect_in_time(0, over, "an upgrade takes too long and is not rolled back");
  world_.expect(config.upgrade_failures == 0 ||
                    config.upgrade_failures != world_.plan.config.upgrade_failures ||
                    ledger.upgrade->failures < config.upgrade_failures,
                "in-time",
                "an upgrade is not rolled back after " + std::to_string(ledger.upgrade->failures) +
                    " failures");
}

// Once another one acts, nobody goes on before that one has died.
void Invariants::on_act(const ProcessPtr& by) {
  if (actor_ == by) {
    return;
  }
  for (const auto& [before, since] : relieved_) {
    world_.expect(before != by || since->dead, "one-acts",
                  "master " + std::to_string(by->pid) + " acts, though " +
                      std::to_string(since->pid) + " has acted since it did");
  }
  std::erase_if(relieved_, [](const auto& entry) { return entry.second->dead; });
  if (actor_ != nullptr && !actor_->dead) {
    relieved_.emplace_back(actor_, by);
  }
  actor_ = by;
}

void Invariants::on_signal(SimulatedKernel& by, const ProcessPtr& to, int signal, bool by_pidfd,
                           const pool::Pool* pool) {
  if (to == nullptr) {
    return;  // it is gone, and the kernel says so
  }
  if (to->kind == ProcessKind::kWorker) {
    on_act(by.process());
  }
  world_.expect(by_pidfd && to->kind != ProcessKind::kClient, "no-stranger",
                "signal " + std::to_string(signal) + " went to process " + std::to_string(to->pid) +
                    (by_pidfd ? ", which is no worker" : " by its number"));
  if (pool == nullptr || to->kind != ProcessKind::kWorker || !to->known) {
    return;
  }
  const pool::Worker* worker = pool->find(to->worker);
  world_.expect(worker != nullptr, "no-stranger",
                text(to->worker) + " got a signal, and the pool does not know it");
  if (worker->condemned) {
    return;  // it hangs, or was above a hard limit: it counts as dead
  }
  if (!worker->signaled.has(signal)) {
    return;  // not what stops it: somebody has asked for that signal
  }
  if (!worker->stopping() || !stopped_.insert(worker->id.epoch.value).second ||
      !pool->ledger().respawn || !worker->acked()) {
    return;
  }
  if (worker->last_signaled_at != world_.now() || signal == SIGKILL ||
      pool->config().hook_before_stop) {
    return;  // decided some time ago: it had something to do before (a hook, draining)
  }
  if (worker->recycling) {
    std::size_t recycled = 0;
    for (const pool::Worker* other : pool->workers()) {
      recycled += other->recycling ? 1 : 0;
    }
    world_.expect(recycled <= pool->config().health.max_recycling, "recycling",
                  std::to_string(recycled) + " workers are being replaced at a time");
  } else {
    check_order(*pool, *worker);
  }
  const pool::Ledger& ledger = pool->ledger();
  // In one turn the number may have been lowered, which stops workers, and raised again.
  world_.expect(numbers_[pool] != pool->config().number ||
                    pool->ready() + pool->paused() >= pool->config().number,
                "capacity",
                text(worker->id) + " is stopped, and only " + std::to_string(pool->ready()) +
                    " of " + std::to_string(pool->config().number) + " are ready");
  if (ledger.upgrade && !ledger.upgrade->proved && worker->version != ledger.version) {
    world_.expect(pool->ready() > pool->modern_ready(), "rollback",
                  "the last ready worker of the old version is stopped");
  }
}

// Who says nothing any more is found in its time, once there was a master to hear it; and nobody
// is taken out without a reason.
void Invariants::check_health(const pool::Pool& pool, const std::vector<ProcessPtr>& living) {
  const pool::HealthRules& rules = pool.config().health;
  if (!rules.watches()) {
    return;
  }
  if (!world_.faults && !calm_since_) {
    calm_since_ = world_.now();
  }
  for (const ProcessPtr& process : living) {
    const pool::Worker* worker = process->known ? pool.find(process->worker) : nullptr;
    if (worker == nullptr) {
      continue;
    }
    const bool served =
        worker->state == pool::WorkerState::kReady && !worker->stopping() && worker->pinged_at;
    if (rules.ping_timeout && process->stalled_at != Instant{} && served) {
      const Instant heard =
          std::max({*worker->pinged_at, process->stalled_at, pool.listening_since()});
      world_.expect(world_.now() <= heard + *rules.ping_timeout + 2 * kLate, "honest",
                    text(worker->id) + " has been silent for too long and is not taken out");
    }
    if (rules.request_timeout && served && !worker->busy.empty()) {
      const Instant since = std::max(worker->busy.front().since, pool.listening_since());
      world_.expect(world_.now() <= since + *rules.request_timeout + 2 * kLate, "honest",
                    text(worker->id) + " has been busy for too long and is not taken out");
    }
    if (rules.probe.on && calm_since_) {
      check_probed(pool, *worker, *process);
    }
    // Some time after the last fault everybody pings who is well.
    world_.expect(world_.faults || worker->ailment != pool::Ailment::kSilent ||
                      *worker->ailing_since < *calm_since_ + 2 * *rules.ping_timeout ||
                      process->stalled_at != Instant{} || !process->said_up,
                  "honest", text(worker->id) + " pings and was taken for silent");
  }
}

// While there are faults probers are wrong, silent and killed. A connection is no sign of life.
void Invariants::check_probed(const pool::Pool& pool, const pool::Worker& worker,
                              const Process& process) {
  const pool::ProbeRules& rules = pool.config().health.probe;
  const Duration patience =
      (rules.failures + 3) * (rules.interval + rules.timeout + kProbeGrace) + 2 * kLate;
  const bool hangs = process.stalled_at != Instant{} && world_.plan.probe != "tcp";
  if (hangs && worker.state == pool::WorkerState::kReady && !worker.stopping()) {
    const Instant since = std::max({process.stalled_at, worker.acked_at.value_or(Instant{}),
                                    pool.listening_since(), *calm_since_});
    world_.expect(world_.now() <= since + patience, "honest",
                  text(worker.id) + " answers no probe and is not taken out");
  }
  world_.expect(worker.ailment != pool::Ailment::kProbe || process.stalled_at != Instant{} ||
                    *worker.ailing_since < *calm_since_ + patience,
                "honest", text(worker.id) + " answers its probes and was taken out for them");
}

void Invariants::on_answer(std::string_view bytes, const pool::Pool* pool) {
  if (pool == nullptr || world_.snapshot_lossy || guard_.has_mail() ||
      !guard_.has_acting_master() ||
      (bytes.find("Altering worker count") == std::string_view::npos &&
       bytes.find("crementing number of workers") == std::string_view::npos) ||
      bytes.find("unning kill") != std::string_view::npos) {
    return;
  }
  world_.expect(read_snapshot(nullptr).config.number == pool->config().number, "persisted",
                "a change was confirmed before it was written down");
}

void Invariants::on_read(std::string_view bytes, const std::vector<ProcessPtr>& living) {
  if (!world_.snapshot_lossy) {
    return;
  }
  const Result<wire::Snapshot> snapshot = wire::decode_snapshot(bytes);
  world_.expect(snapshot.has_value(), "persisted", "a new master can't read its snapshot");
  os::SpawnNote note;
  if (bytes.size() >= sizeof(note)) {
    std::memcpy(&note, bytes.data(), sizeof(note));
  }
  const auto written = [&snapshot, &note](const Process& process) {
    const auto record = snapshot->workers.find(process.worker.epoch);
    return record != snapshot->workers.end() &&
           (record->second.pid == process.pid ||
            (note.epoch == process.worker.epoch.value && note.pid == process.pid));
  };
  epochs_.clear();  // whoever was not written down may be counted again
  for (const ProcessPtr& process : living) {
    // The word of one that was forked may have been read already, and is lost then too.
    process->lost = process->lost || !written(*process);
    process->known = process->known && !process->lost;
  }
}

// Its successor acted, and died together with the guard, before that had heard of it: what it did is
// lost. While a guard lives this can't be, as what a dead successor has said still counts.
void Invariants::forget_lost_successors(const ProcessPtr& master) {
  const auto lost = [this, &master](const ProcessPtr& starter) {
    return starter != nullptr && starter->dead && starter->born_at > master->born_at &&
           (!guard_.alive() || guard_.born_at() > starter->born_at);
  };
  for (const auto& [pid, process] : world_.processes()) {
    process->lost = process->lost || lost(process->starter);
    process->known = process->known && !process->lost;
  }
  std::erase_if(epochs_, [&lost](const auto& entry) { return lost(entry.second); });
}

// What it began with is still in the guard's store: it has written a snapshot of its own since, but
// the guard has had no time yet to take it.
void Invariants::after_create(MasterProcess& master, const std::vector<ProcessPtr>& living) {
  const pool::Pool& pool = *master.pool();
  numbers_[&pool] = pool.config().number;
  for (const pool::Worker* worker : pool.workers()) {
    if (worker->stopping()) {
      stopped_.insert(worker->id.epoch.value);  // perhaps while nobody could look at its pool
    }
  }
  if (guard_.stored("snapshot") == nullptr) {
    return;  // the guard died in the meantime
  }
  check_words(pool, living);
  const wire::Snapshot& before = read_snapshot(nullptr);
  world_.expect(pool.ledger().next_epoch >= before.ledger.next_epoch &&
                    pool.ledger().newest >= before.ledger.newest,
                "handoff", "the new master counts again what was counted");
  world_.expect(pool.config().number == before.config.number, "handoff",
                "the new master wants another number of workers");
  for (const auto& [id, client] : before.connections) {
    world_.expect(
        client.input.size() <= 2 * limits::kMaxLineBytes && client.output.size() <= kMostUnsent,
        "bounded",
        "the master kept " + std::to_string(client.input.size()) + " bytes of a client and " +
            std::to_string(client.output.size()) + " for it");
  }
  for (const ProcessPtr& process : living) {
    if (!process->known) {
      continue;
    }
    const auto record = before.workers.find(process->worker.epoch);
    if (record == before.workers.end()) {
      world_.expect(process->born_at >= master.process()->born_at, "handoff",
                    text(process->worker) + " was not written down");
      continue;
    }
    const pool::Worker& was = record->second.worker;
    const pool::Worker* is = pool.find(was.id);
    world_.expect(is != nullptr, "handoff", text(was.id) + " lives, and the new master lost it");
    // A zygote's fork may have come to an end while the new master was made.
    const bool begun = is->spawned_at == was.spawned_at || was.hook != pool::Hook::kNone ||
                       (world_.plan.preload && was.state == pool::WorkerState::kSpawning);
    world_.expect(is->version == was.version && begun &&
                      (!was.acked() || is->acked_at == was.acked_at) &&
                      (was.signaled.bits() & ~is->signaled.bits()) == 0 &&
                      is->pinged_request_id == was.pinged_request_id &&
                      is->status_text == was.status_text && (!was.stopping() || is->stopping()),
                  "handoff", text(was.id) + " is not what it was");
  }
}

// What a forked worker has said of itself is in the socket until it is written down.
void Invariants::check_words(const pool::Pool& pool, const std::vector<ProcessPtr>& living) {
  for (const ProcessPtr& process : living) {
    const std::shared_ptr<PacketQueue> word = process->word.lock();
    if (word == nullptr || word->reader_gone || process->known || process->lost ||
        world_.snapshot_lossy) {
      continue;
    }
    const bool waits = std::ranges::any_of(word->packets, [&process](const Packet& packet) {
      return packet.sender.pid == process->pid;
    });
    const pool::Worker* worker = pool.find(process->worker);
    world_.expect(
        waits || (worker != nullptr && worker->state != pool::WorkerState::kSpawning), "word",
        text(process->worker) + " has said that it was forked, and nobody has written it down");
  }
}

void Invariants::check_known(const pool::Pool& pool, const std::vector<ProcessPtr>& living) {
  for (const ProcessPtr& process : living) {
    if (process->forked && !process->known && !process->lost) {
      const pool::Worker* worker = pool.find(process->worker);
      // Where something could not be written down an epoch may be used twice.
      process->known = worker != nullptr && worker->state != pool::WorkerState::kSpawning &&
                       !world_.snapshot_lossy;
      world_.expect(process->known || world_.snapshot_lossy ||
                        world_.now() - process->born_at < kLongestUnknown,
                    "no-stranger",
                    text(process->worker) + " was forked, and nobody wants to know it");
      continue;
    }
    world_.expect(!process->known || pool.find(process->worker) != nullptr, "no-stranger",
                  text(process->worker) + " (pid " + std::to_string(process->pid) +
                      ") lives, and the pool does not know it");
  }
  if (!guard_.has_acting_master()) {
    return;
  }
  for (const auto& [pid, process] : world_.processes()) {
    world_.expect(!process->dead || process->parent != world_.guard_pid() ||
                      world_.now() - process->died_at < kLongestZombie ||
                      world_.now() - guard_.born_at() < kLongestZombie ||
                      world_.now() - world_.find(guard_.master())->born_at < kLongestZombie,
                  "reaped-once",
                  "process " + std::to_string(pid) + " has been a zombie for too long");
  }
}

void Invariants::check_persisted(MasterProcess& master, const pool::Pool& pool,
                                 const std::vector<ProcessPtr>& living) {
  if (world_.snapshot_lossy || (guard_.alive() && guard_.has_mail())) {
    return;
  }
  const wire::Snapshot& read = read_snapshot(&master.kernel());
  const pool::Ledger& now = pool.ledger();
  const pool::Ledger& written = read.ledger;
  world_.expect(read.damage.empty(), "persisted",
                "the snapshot is damaged: " + (read.damage.empty() ? "" : read.damage.front()));
  world_.expect(written.version == now.version && written.newest == now.newest &&
                    written.next_epoch == now.next_epoch && written.burst_left == now.burst_left &&
                    written.deaths_before_ack == now.deaths_before_ack &&
                    written.failed == now.failed && written.respawn == now.respawn &&
                    written.last_spinup == now.last_spinup &&
                    written.upgrade.has_value() == now.upgrade.has_value() &&
                    written.proved == now.proved && written.previous == now.previous &&
                    written.failure == now.failure && written.deaths == now.deaths,
                "persisted", "the ledger was not written down");
  if (now.upgrade) {
    world_.expect(written.upgrade->proved == now.upgrade->proved &&
                      written.upgrade->failures == now.upgrade->failures &&
                      written.upgrade->from == now.upgrade->from &&
                      written.upgrade->going_back == now.upgrade->going_back,
                  "persisted", "the upgrade was not written down");
  }
  world_.expect(read.config.number == pool.config().number &&
                    read.config.max_unacked == pool.config().max_unacked,
                "persisted", "the configuration was not written down");
  world_.expect(read.troubles.size() == pool.troubles().size(), "persisted",
                "the slots that were paused were not written down");
  if (turns_ % (kPersistedEvery * kBoundsEvery) == 0) {
    check_bounds(read);
  }
  const std::vector<const pool::Worker*> workers = pool.workers();
  world_.expect(workers.size() == read.workers.size(), "persisted",
                "the snapshot has " + std::to_string(read.workers.size()) + " workers, the pool " +
                    std::to_string(workers.size()));
  for (const pool::Worker* worker : workers) {
    const auto record = read.workers.find(worker->id.epoch);
    const bool waits = (world_.plan.preload || worker->hook != pool::Hook::kNone) &&
                       worker->state == pool::WorkerState::kSpawning;
    world_.expect(record != read.workers.end() && (waits || record->second.pid != 0) &&
                      record->second.worker.state == worker->state &&
                      record->second.worker.acked_at == worker->acked_at &&
                      record->second.worker.last_signaled_at == worker->last_signaled_at &&
                      record->second.worker.pinged_at == worker->pinged_at &&
                      record->second.worker.missed_ack == worker->missed_ack &&
                      record->second.worker.status_text == worker->status_text &&
                      record->second.worker.ailment == worker->ailment &&
                      record->second.worker.recycling == worker->recycling &&
                      record->second.worker.hook == worker->hook &&
                      record->second.worker.examining == worker->examining &&
                      record->second.worker.busy.size() == worker->busy.size() &&
                      record->second.worker.requests == worker->requests,
                  "persisted", text(worker->id) + " was not written down");
  }
  check_speakers(pool, read, living);
}

// The connection on which a worker is going to say its ACK is to outlive this master, and so is the
// one that it was born with.
void Invariants::check_speakers(const pool::Pool& pool, const wire::Snapshot& written,
                                const std::vector<ProcessPtr>& living) {
  for (const ProcessPtr& process : living) {
    const std::shared_ptr<Stream> silent = process->silent.lock();
    const std::shared_ptr<Stream> born_with = process->born_with.lock();
    const pool::Worker* worker = process->known ? pool.find(process->worker) : nullptr;
    // Of several connections that have not spoken one is kept, which may be the stranger's.
    const bool speaks = silent != nullptr && silent->is_accepted() && worker != nullptr &&
                        !worker->acked() && !process->strange;
    const bool linked = born_with != nullptr && born_with->is_accepted() && worker != nullptr;
    if (!speaks && !linked) {
      continue;
    }
    const bool kept = std::ranges::any_of(written.connections, [&](const auto& entry) {
      // Without a guard it goes with the rest, when another one takes the pool over.
      return entry.second.peer_pid == process->pid &&
             (!guard_.alive() || guard_.stored("conn:" + std::to_string(entry.first)) != nullptr);
    });
    world_.expect(kept, "heard",
                  std::string(linked ? "the connection" : "the ACK") + " of " + text(worker->id) +
                      " would die with this master");
  }
}

void Invariants::after_turn(MasterProcess& master, const std::vector<ProcessPtr>& living,
                            bool acting) {
  const pool::Pool* pool = master.pool();
  if (pool == nullptr) {
    return;
  }
  numbers_[pool] = pool->config().number;
  if (pool->ledger().upgrade) {
    note_canaries(*pool);
  }
  if (!acting) {
    return;
  }
  world_.expect(pool->ledger().respawn || !world_.faults, "rights",
                "the pool is going down, and nobody who may say so has said it");
  forget_lost_successors(master.process());
  check_words(*pool, living);
  check_known(*pool, living);
  check_acks(*pool, living);
  check_in_time(*pool);
  check_descriptors(master, *pool);
  const pool::Config& config = pool->config();
  world_.expect(config.workers_max == 0 ||
                    (config.number >= config.workers_min && config.number <= config.workers_max),
                "scaled", std::to_string(config.number) + " workers are wanted");
  check_health(*pool, living);
  if (stable(*pool) && !pool->config().health.watches()) {
    world_.expect(!pool->next_deadline(), "quiet", "a stable pool waits for something");
  }
  if (++turns_ % kPersistedEvery == 0) {
    check_persisted(master, *pool, living);
  }
}

}  // namespace einhorn::sim
