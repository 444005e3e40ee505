#include "sim/invariants.h"

#include <algorithm>
#include <csignal>

#include "base/limits.h"

namespace einhorn::sim {
namespace {

using std::chrono::seconds;

constexpr Duration kLongestZombie = seconds{20};
constexpr std::uint64_t kPersistedEvery = 8;      // turns
constexpr std::uint64_t kBoundsEvery = 8;         // of those
constexpr std::size_t kLongestTurn = 256 * 1024;  // what one turn may append
constexpr int kMostClients = 100;
constexpr Duration kShortestPause = std::chrono::milliseconds{500};
constexpr Duration kKillAfterMissedAck = seconds{10};
constexpr std::size_t kWorkerBytes = 4096;           // of the snapshot, garbage included
constexpr std::size_t kMostSnapshotBytes = 700'000;  // twice the biggest fresh one and the slack
constexpr std::size_t kMostUnsent = 192 * 1024;      // of one client
constexpr Duration kLate = seconds{1};               // more than any turn takes

std::string text(WorkerId id) {
  return "worker " + std::to_string(id.slot.value) + " of epoch " + std::to_string(id.epoch.value);
}

}  // namespace

bool Invariants::stable(const pool::Pool& pool) {
  const pool::Ledger& ledger = pool.ledger();
  return ledger.respawn && !ledger.failed && !ledger.upgrade &&
         pool.alive() == pool.config().number && pool.modern_ready() == pool.config().number;
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
  return read_;
}

void Invariants::on_spawn(SimulatedKernel& by, const os::SpawnSpec& spec, WorkerId id,
                          const pool::Pool* pool) {
  on_act(by.process());
  world_.expect(epochs_.insert(id.epoch.value).second, "identity",
                "epoch " + std::to_string(id.epoch.value) + " was used twice");
  for (const auto& [pid, process] : world_.processes()) {
    world_.expect(process->kind != ProcessKind::kWorker || process->dead || !process->known ||
                      process->worker.slot != id.slot,
                  "identity", "slot " + std::to_string(id.slot.value) + " has a living worker");
  }
  world_.expect(spec.descriptors.size() == world_.plan.listeners, "ownership",
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

void Invariants::check_canary(const pool::Pool& pool, Version version) {
  const pool::Config& config = pool.config();
  const auto& upgrade = pool.ledger().upgrade;
  if (!upgrade || upgrade->going_back || upgrade->to != version) {
    return;
  }
  const std::size_t canaries = std::clamp<std::size_t>(config.canary, 1, config.number);
  const bool wanted = upgrade->rollback && config.canary > 0;
  const auto [begun, is_new] = canaries_.emplace(version, wanted ? canaries : 0);
  if (is_new || begun->second == 0 || upgrade->failures > 0 || pool.modern_ready() > 0 ||
      seen_ready_.contains(version)) {
    return;
  }
  world_.expect(pool.starting() <= std::max(begun->second, canaries), "canary",
                std::to_string(pool.starting()) + " workers of version " +
                    std::to_string(version.value) + " are starting, and none has been ready");
}

void Invariants::check_order(const pool::Pool& pool, const pool::Worker& stopped) {
  for (const pool::Worker* worker : pool.workers()) {
    world_.expect(worker->state != pool::WorkerState::kReady ||
                      worker->version != stopped.version || stopped.id.epoch < worker->id.epoch,
                  "oldest-first",
                  text(stopped.id) + " is stopped before the older " + text(worker->id));
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
    world_.expect(worker == nullptr || !worker->acked() || process->said_up, "own-ack",
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
    if (!patience && worker->missed_ack) {
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
  if (!worker->stopping() || !stopped_.insert(worker->id.epoch.value).second ||
      !pool->ledger().respawn || !worker->acked()) {
    return;
  }
  check_order(*pool, *worker);
  const pool::Ledger& ledger = pool->ledger();
  world_.expect(pool->ready() >= pool->config().number, "capacity",
                text(worker->id) + " is stopped, and only " + std::to_string(pool->ready()) +
                    " of " + std::to_string(pool->config().number) + " are ready");
  if (ledger.upgrade && !ledger.upgrade->proved && worker->version != ledger.version) {
    world_.expect(pool->ready() > pool->modern_ready(), "rollback",
                  "the last ready worker of the old version is stopped");
  }
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

void Invariants::before_create(const std::vector<ProcessPtr>& living) {
  if (world_.snapshot_lossy && guard_.alive()) {
    const wire::Snapshot& snapshot = read_snapshot(nullptr);
    epochs_.clear();  // whoever was not written down may be counted again
    for (const ProcessPtr& process : living) {
      process->known = process->known && snapshot.workers.contains(process->worker.epoch);
    }
  }
}

// What it began with is still in the guard's store: it has written a snapshot of its own since, but
// the guard has had no time yet to take it.
void Invariants::after_create(MasterProcess& master, const std::vector<ProcessPtr>& living) {
  const pool::Pool& pool = *master.pool();
  for (const pool::Worker* worker : pool.workers()) {
    if (worker->stopping()) {
      stopped_.insert(worker->id.epoch.value);  // perhaps while nobody could look at its pool
    }
  }
  if (guard_.stored("snapshot") == nullptr) {
    return;  // the guard died in the meantime
  }
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
    world_.expect(is->version == was.version && is->spawned_at == was.spawned_at &&
                      (!was.acked() || is->acked_at == was.acked_at) &&
                      (was.signaled.bits() & ~is->signaled.bits()) == 0 &&
                      is->pinged_request_id == was.pinged_request_id &&
                      is->status_text == was.status_text && (!was.stopping() || is->stopping()),
                  "handoff", text(was.id) + " is not what it was");
  }
}

void Invariants::check_known(const pool::Pool& pool, const std::vector<ProcessPtr>& living) {
  for (const ProcessPtr& process : living) {
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

void Invariants::check_persisted(MasterProcess& master, const pool::Pool& pool) {
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
  check_bounds(read);
  const std::vector<const pool::Worker*> workers = pool.workers();
  world_.expect(workers.size() == read.workers.size(), "persisted",
                "the snapshot has " + std::to_string(read.workers.size()) + " workers, the pool " +
                    std::to_string(workers.size()));
  for (const pool::Worker* worker : workers) {
    const auto record = read.workers.find(worker->id.epoch);
    world_.expect(record != read.workers.end() && record->second.pid != 0 &&
                      record->second.worker.state == worker->state &&
                      record->second.worker.acked_at == worker->acked_at &&
                      record->second.worker.last_signaled_at == worker->last_signaled_at &&
                      record->second.worker.pinged_at == worker->pinged_at &&
                      record->second.worker.missed_ack == worker->missed_ack &&
                      record->second.worker.status_text == worker->status_text,
                  "persisted", text(worker->id) + " was not written down");
  }
}

// The journal is written anew before it has grown to more than this; what a snapshot holds does not
// grow with the pool's age.
void Invariants::check_bounds(const wire::Snapshot& snapshot) {
  if (turns_ % (kPersistedEvery * kBoundsEvery) != 0) {
    return;
  }
  const std::size_t fresh = wire::encode_journal(snapshot).size();
  world_.expect(snapshot.journal_bytes <= 2 * fresh + limits::kSnapshotSlackBytes + kLongestTurn,
                "bounded",
                "the journal has " + std::to_string(snapshot.journal_bytes) + " bytes, and " +
                    std::to_string(fresh) + " would do");
  // Those that no worker has any more go with the next upgrade; while there is no room to write that
  // down, each master finds them again.
  most_workers_ = std::max(most_workers_, snapshot.workers.size());
  world_.expect(snapshot.programs.size() <= most_workers_ + 12, "bounded",
                std::to_string(snapshot.programs.size()) + " versions are kept");
}

void Invariants::check_descriptors(MasterProcess& master, const pool::Pool& pool) {
  SimulatedKernel& kernel = master.kernel();
  const auto most = [&](FileKind kind, int count) {
    world_.expect(kernel.open_of(kind) <= count, "descriptors",
                  "the master has " + std::to_string(kernel.open_of(kind)) + " of " +
                      std::string(name(kind)) + " open, " + std::to_string(count) + " are enough");
  };
  const int hand_off = 1;  // the pidfd of a check or a successor
  most(FileKind::kListener, 1);
  most(FileKind::kDatagram, 1);
  most(FileKind::kStream, static_cast<int>(pool.alive()) * 2 + kMostClients);
  most(FileKind::kService, static_cast<int>(world_.plan.listeners));
  most(FileKind::kMemory, 2);
  most(FileKind::kPacket, 2);
  most(FileKind::kLog, 1);
  most(FileKind::kProgram, 1);
  most(FileKind::kPidfd, static_cast<int>(pool.alive()) + hand_off);
  world_.expect(kernel.open_of(FileKind::kService) == static_cast<int>(world_.plan.listeners),
                "ownership", "the master has lost a listening socket");
  if (!guard_.has_acting_master()) {
    return;
  }
  for (std::uint32_t i = 0; i < world_.plan.listeners; ++i) {
    world_.expect(guard_.stored("listen:" + std::to_string(i)) != nullptr, "ownership",
                  "the guard has lost a listening socket");
  }
  world_.expect(
      guard_.stored_count() <= 20 + static_cast<std::size_t>(world_.census.of(FileKind::kStream)),
      "bounded", "the guard keeps more and more");
  const auto memory = std::dynamic_pointer_cast<Memory>(guard_.stored("snapshot"));
  world_.expect(memory->size() < kMostSnapshotBytes + pool.alive() * kWorkerBytes, "bounded",
                "the snapshot grows without end");
}

void Invariants::after_turn(MasterProcess& master, const std::vector<ProcessPtr>& living,
                            bool acting) {
  const pool::Pool* pool = master.pool();
  if (pool == nullptr || !acting) {
    return;
  }
  world_.expect(pool->ledger().respawn || !world_.faults, "rights",
                "the pool is going down, and nobody who may say so has said it");
  check_known(*pool, living);
  check_acks(*pool, living);
  check_in_time(*pool);
  check_descriptors(master, *pool);
  if (stable(*pool)) {
    world_.expect(!pool->next_deadline(), "quiet", "a stable pool waits for something");
  }
  if (++turns_ % kPersistedEvery == 0) {
    check_persisted(master, *pool);
  }
}

}  // namespace einhorn::sim
