// Who is where: slots, buckets and timers of the pool's workers.
#include <algorithm>
#include <csignal>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "pool/pool.h"

namespace einhorn::pool {
namespace {

// A worker that missed its ACK or is condemned has shown that it hangs: it is not waited for
// without a limit.
constexpr Duration kKillWhoHangs = std::chrono::seconds{10};

}  // namespace

std::string_view name(WorkerState state) {
  switch (state) {
    case WorkerState::kSpawning:
      return "spawning";
    case WorkerState::kStarting:
      return "starting";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kStopping:
      return "stopping";
  }
  return "";
}

const Worker* Pool::find(WorkerId worker) const {
  if (worker.slot.value >= slots_.size()) {
    return nullptr;
  }
  const auto& entry = slots_[worker.slot.value];
  return entry && entry->worker.id == worker ? &entry->worker : nullptr;
}

Pool::Entry* Pool::entry(WorkerId worker) {
  if (worker.slot.value >= slots_.size()) {
    return nullptr;
  }
  auto& entry = slots_[worker.slot.value];
  return entry && entry->worker.id == worker ? entry.get() : nullptr;
}

std::vector<const Worker*> Pool::workers() const {
  std::set<std::pair<Epoch, const Worker*>> by_age;
  for (const auto& entry : slots_) {
    if (entry) {
      by_age.emplace(entry->worker.id.epoch, &entry->worker);
    }
  }
  std::vector<const Worker*> workers;
  workers.reserve(by_age.size());
  for (const auto& [epoch, worker] : by_age) {
    workers.push_back(worker);
  }
  return workers;
}

std::set<Version> Pool::versions_in_use() const {
  std::set<Version> versions{ledger_.version, ledger_.proved};
  if (ledger_.previous) {
    versions.insert(*ledger_.previous);
  }
  if (ledger_.upgrade) {
    versions.insert(ledger_.upgrade->from);
    versions.insert(ledger_.upgrade->to);
  }
  for (const auto& entry : slots_) {
    if (entry) {
      versions.insert(entry->worker.version);
    }
  }
  return versions;
}

void Pool::place(Entry& entry) {
  Bucket* bucket = nullptr;
  const bool modern = entry.worker.version == ledger_.version;
  switch (entry.worker.state) {
    case WorkerState::kSpawning:
    case WorkerState::kStarting:
      bucket = modern ? &modern_starting_ : &old_starting_;
      break;
    case WorkerState::kReady:
      bucket = modern ? &modern_ready_ : &old_ready_;
      break;
    case WorkerState::kStopping:
      bucket = &stopping_;
      break;
  }
  if (bucket != entry.bucket) {
    if (entry.bucket != nullptr) {
      entry.bucket->erase(entry.worker.id);
    }
    bucket->insert(entry.worker.id);
    entry.bucket = bucket;
  }
  file(entry);
}

void Pool::rebucket_all() {
  for (auto& entry : slots_) {
    if (entry) {
      place(*entry);
      if (entry->worker.stopping()) {
        schedule(*entry);  // its patience may be that for old versions now
      }
    }
  }
}

void Pool::set_timer(Entry& entry, std::optional<Instant> at) {
  if (entry.timer == at) {
    return;
  }
  if (entry.timer) {
    timers_.erase({*entry.timer, entry.worker.id});
  }
  entry.timer = at;
  if (at) {
    timers_.emplace(*at, entry.worker.id);
  }
}

std::optional<Instant> Pool::ack_due(const Entry& entry) const {
  const Worker& worker = entry.worker;
  if (config_.ack_mode == AckMode::kTimer) {
    return worker.spawned_at + config_.ack_delay;
  }
  if (config_.ack_timeout > Duration::zero()) {
    return worker.spawned_at +
           std::min<Duration>((entry.ack_warnings + 1) * kAckWarningEvery, config_.ack_timeout);
  }
  return std::nullopt;
}

std::optional<Instant> Pool::stop_due(const Worker& worker) const {
  if (worker.hook != Hook::kNone) {
    return std::nullopt;  // its time is up when the signal has been sent, and then some
  }
  if (worker.examining) {
    return examined_by(worker);
  }
  std::optional<Duration> patience = config_.signal_timeout;
  if ((worker.missed_ack || worker.condemned) && !patience) {
    patience = kKillWhoHangs;
  }
  if (config_.drain_timeout && worker.version != ledger_.version &&
      (!patience || *config_.drain_timeout < *patience)) {
    patience = config_.drain_timeout;
  }
  if (patience && !worker.signaled.has(SIGKILL) && worker.last_signaled_at) {
    return *worker.last_signaled_at + *patience;
  }
  return std::nullopt;
}

// Timers follow from what a worker's record says, so that they need no place in the snapshot.
void Pool::schedule(Entry& entry) {
  switch (entry.worker.state) {
    case WorkerState::kSpawning:
      set_timer(entry, std::nullopt);
      return;
    case WorkerState::kStarting: {
      const std::optional<Instant> ack = ack_due(entry);
      const std::optional<Instant> health = health_due(entry);
      set_timer(entry, ack && health ? std::min(ack, health) : ack ? ack : health);
      return;
    }
    case WorkerState::kReady:
      set_timer(entry, health_due(entry));
      return;
    case WorkerState::kStopping:
      set_timer(entry, stop_due(entry.worker));
      return;
  }
}

void Pool::touch(Entry& entry) {
  if (!entry.dirty) {
    entry.dirty = true;
    dirty_.push_back(entry.worker.id);
  }
}

Slot Pool::take_lowest_slot() {
  if (!free_slots_.empty()) {
    return Slot{free_slots_.extract(free_slots_.begin()).value()};
  }
  slots_.emplace_back();
  return Slot{static_cast<std::uint32_t>(slots_.size() - 1)};
}

Pool::Entry& Pool::insert(Worker worker) {
  auto& place_of = slots_.at(worker.id.slot.value);
  CHECK(!place_of);
  place_of = std::make_unique<Entry>();
  place_of->worker = std::move(worker);
  ++alive_;
  place(*place_of);
  return *place_of;
}

void Pool::remove(Entry& entry) {
  const WorkerId id = entry.worker.id;
  set_timer(entry, std::nullopt);
  entry.bucket->erase(id);
  unfile(id);
  gone_.push_back(id);
  slots_[id.slot.value].reset();
  if (!is_paused(id.slot)) {
    free_slots_.insert(id.slot.value);
  }
  --alive_;
}

Pool::Changes Pool::take_changes() {
  Changes changes;
  changes.ledger = std::exchange(ledger_dirty_, false);
  changes.config = std::exchange(config_dirty_, false);
  for (const WorkerId id : dirty_) {
    if (Entry* changed = entry(id)) {
      changed->dirty = false;
      changes.changed.push_back(id);
    }
  }
  dirty_.clear();
  changes.gone = std::exchange(gone_, {});
  for (const Slot slot : std::exchange(slots_changed_, {})) {
    const auto trouble = troubles_.find(slot);
    changes.slots.push_back(trouble != troubles_.end() ? trouble->second
                                                       : SlotTrouble{.slot = slot});
  }
  return changes;
}

}  // namespace einhorn::pool
