// Events and what they mean for one worker; see pool.h.
#include "pool/pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace einhorn::pool {
namespace {

// A worker that has lived so long is replaced without waiting for others to come up.
constexpr Duration kEstablished = std::chrono::seconds{1};
// Workers that ACK and die at once, again and again, are not restarted without any pause.
constexpr Duration kQuickDeathWindow = std::chrono::seconds{10};
constexpr std::uint32_t kMaxQuickDeaths = 1000;
// A timer that comes so late says that we were not there to hear anybody.
constexpr Duration kLate = std::chrono::seconds{1};

}  // namespace

std::string describe(const ExitStatus& status) {
  switch (status.kind) {
    case ExitStatus::Kind::kExited:
      return "exited with status " + std::to_string(status.value);
    case ExitStatus::Kind::kSignaled:
      if (status.out_of_memory) {
        return "was killed for want of memory (signal " + std::to_string(status.value) + ")";
      }
      return "was killed by signal " + std::to_string(status.value) + " (" +
             signal_name(status.value) + ")" + (status.core_dumped ? ", core dumped" : "");
    case ExitStatus::Kind::kUnknown:
      return "ended in an unknown way";
  }
  return "";
}

Pool::Pool(Config config) : config_(config) {}

Pool::Pool(Config config, Ledger ledger, std::vector<Worker> workers,
           std::vector<SlotTrouble> troubles)
    : config_(config), ledger_(std::move(ledger)), restored_(true) {
  ledger_.left = false;  // whoever left is not here any more
  std::uint32_t slots = 0;
  for (SlotTrouble& trouble : troubles) {
    slots = std::max(slots, trouble.slot.value + 1);
    paused_ += trouble.paused() ? 1U : 0U;
    troubles_[trouble.slot] = std::move(trouble);
  }
  for (const Worker& worker : workers) {
    slots = std::max(slots, worker.id.slot.value + 1);
  }
  slots_.resize(slots);
  std::vector<Epoch> latest(slots);
  for (const Worker& worker : workers) {
    Epoch& epoch = latest[worker.id.slot.value];
    epoch = std::max(epoch, worker.id.epoch);
  }
  for (Worker& worker : workers) {
    ledger_.next_epoch = std::max(ledger_.next_epoch, worker.id.epoch.value + 1);
    ledger_.newest = std::max(ledger_.newest, worker.version);
    if (worker.id.epoch != latest[worker.id.slot.value]) {
      continue;  // gone when its slot was given away; the master died before that was written down
    }
    Entry& inserted = insert(std::move(worker));
    schedule(inserted);
    touch(inserted);
  }
  for (std::uint32_t slot = 0; slot < slots; ++slot) {
    if (!slots_[slot] && !is_paused(Slot{slot})) {
      free_slots_.insert(slot);
    }
  }
  spinup_at_ = Instant{};  // a start or a canary may have been waited for: look once, at once
}

const std::vector<Action>& Pool::step(const Event& event, Instant now) {
  actions_.clear();
  if (std::exchange(restored_, false)) {
    listen_anew(now);
  }
  std::visit([this, now](const auto& happened) { on(happened, now); }, event);
  settle(now);
  return actions_;
}

std::optional<Instant> Pool::next_deadline() const {
  std::optional<Instant> next;
  const auto consider = [&next](std::optional<Instant> at) {
    if (at && (!next || *at < *next)) {
      next = at;
    }
  };
  if (!timers_.empty()) {
    consider(timers_.begin()->first);
  }
  consider(spinup_at_);
  consider(canary_at_);
  consider(sample_at_);
  consider(next_resume());
  if (ledger_.upgrade && ledger_.upgrade->rollback && config_.upgrade_timeout) {
    consider(ledger_.upgrade->started_at + *config_.upgrade_timeout);
  }
  return next;
}

void Pool::on(const event::Started& /*event*/, Instant /*now*/) {
  ledger_.burst_left = config_.number;
  ledger_dirty_ = true;
}

void Pool::on(const event::TimerDue& /*event*/, Instant now) {
  if (!timers_.empty() && now - timers_.begin()->first > kLate) {
    listen_anew(now);
  }
  resume_slots(now);
  take_samples(now);
  std::size_t budget = limits::kMaxEventsPerTurn;
  while (!timers_.empty() && timers_.begin()->first <= now && budget-- > 0) {
    Entry* due = entry(timers_.begin()->second);
    CHECK(due != nullptr);
    on_worker_timer(*due, now);
  }
  if (ledger_.upgrade && ledger_.upgrade->rollback && config_.upgrade_timeout &&
      ledger_.upgrade->started_at + *config_.upgrade_timeout <= now) {
    fail_upgrade("it was not over within " +
                     std::to_string(static_cast<int>(to_seconds(*config_.upgrade_timeout))) + " s",
                 now);
  }
}

void Pool::on_worker_timer(Entry& entry, Instant now) {
  Worker& worker = entry.worker;
  if (worker.stopping()) {
    if (worker.examining) {
      stop_workers({worker.id}, config_.stop_signal, now);
    } else {
      kill(entry, now);
    }
    return;
  }
  if (!check_health(entry, now)) {
    return;
  }
  const std::optional<Instant> ack =
      worker.state == WorkerState::kStarting ? ack_due(entry) : std::nullopt;
  if (!ack || now < *ack) {
    schedule(entry);
    return;
  }
  if (config_.ack_mode == AckMode::kTimer) {
    become_ready(entry, AckMode::kTimer, now);
    return;
  }
  const Duration waited = now - worker.spawned_at;
  if (waited < config_.ack_timeout) {
    note(note::AckOverdue{worker.id, waited});
    entry.ack_warnings = waited / kAckWarningEvery;
    schedule(entry);
    return;
  }
  note(note::AckMissed{worker.id, waited});
  worker.missed_ack = true;
  const Worker failed = worker;
  count_death_before_ack();
  count_flap(failed.id.slot, now);
  stop_workers({worker.id}, config_.stop_signal, now);
  count_upgrade_failure(
      failed, "did not ACK within " + std::to_string(static_cast<int>(to_seconds(waited))) + " s",
      now);
}

void Pool::kill(Entry& entry, Instant now) {
  Worker& worker = entry.worker;
  note(note::Killing{worker.id, now - worker.last_signaled_at.value_or(now)});
  end_hook(worker);
  worker.signaled.add(SIGKILL);
  worker.last_signaled_at = now;
  actions_.emplace_back(SendSignal{worker.id, SIGKILL, true});
  schedule(entry);
  touch(entry);
}

void Pool::on(const event::Spawned& event, Instant now) {
  Entry* spawned = entry(event.worker);
  if (spawned == nullptr || spawned->worker.state != WorkerState::kSpawning) {
    return;
  }
  spawned->worker.state = WorkerState::kStarting;
  spawned->worker.hook = Hook::kNone;
  if (event.late) {
    spawned->worker.spawned_at = now;
  }
  place(*spawned);
  schedule(*spawned);
  touch(*spawned);
  note(note::Launched{event.worker, spawned->worker.version});
  if (spawned->worker.stop_wanted || !ledger_.respawn) {
    const int signal = spawned->worker.stop_with;
    stop_workers({event.worker}, signal != 0 ? signal : config_.stop_signal, now);
  }
}

void Pool::on(const event::SpawnFailed& event, Instant now) {
  Entry* failed = entry(event.worker);
  if (failed == nullptr) {
    return;
  }
  const Worker worker = failed->worker;
  remove(*failed);
  if (event.blame == event::Blame::kNobody) {
    return;
  }
  note(note::LaunchFailed{worker.id, worker.version, event.reason});
  count_death_before_ack();
  count_flap(worker.id.slot, now);
  count_upgrade_failure(worker, event.reason, now, event.blame == event::Blame::kVersion);
}

void Pool::on(const event::Exited& event, Instant now) {
  Entry* exited = entry(event.worker);
  if (exited == nullptr) {
    return;
  }
  const Worker worker = exited->worker;
  remove(*exited);
  const bool before_ack = !worker.acked();
  note(note::Exited{worker.id, worker.version, event.status, before_ack, worker.stopping(),
                    now - worker.spawned_at});
  if (worker.stopping()) {
    return;
  }
  ++ledger_.deaths;
  ledger_dirty_ = true;
  if (before_ack) {
    count_death_before_ack();
  } else {
    count_death_after_ack(worker, now);
  }
  count_flap(worker.id.slot, now);
  count_upgrade_failure(
      worker, describe(event.status) + (before_ack ? " before it was ACKed" : " after its ACK"),
      now);
}

void Pool::count_death_after_ack(const Worker& worker, Instant now) {
  if (now - worker.spawned_at >= kEstablished) {
    if (!config_.max_unacked_given && !config_.seconds && worker.version == ledger_.version) {
      ++ledger_.burst_left;
    }
    return;
  }
  if (now - ledger_.quick_deaths_since > kQuickDeathWindow) {
    ledger_.quick_deaths_since = now;
    ledger_.quick_deaths = 0;
  }
  ++ledger_.quick_deaths;
}

bool Pool::dying_quickly(Instant now) const {
  return ledger_.quick_deaths > kMaxQuickDeaths &&
         now - ledger_.quick_deaths_since <= kQuickDeathWindow;
}

void Pool::count_death_before_ack() {
  ++ledger_.deaths_before_ack;
  ledger_.burst_left = 0;
  ledger_dirty_ = true;
  if (config_.give_up > 0 && ledger_.deaths_before_ack >= config_.give_up && !ledger_.failed &&
      ledger_.respawn && !(ledger_.upgrade && ledger_.upgrade->rollback)) {
    ledger_.failed = true;
    note(note::GaveUp{ledger_.deaths_before_ack});
  }
}

void Pool::on(const event::Acked& event, Instant now) {
  Entry* acked = entry(event.worker);
  if (acked == nullptr) {
    return;
  }
  if (event.by != config_.ack_mode || acked->worker.acked()) {
    note(note::AckRefused{event.worker, event.by, acked->worker.acked()});
    return;
  }
  if (acked->worker.state == WorkerState::kSpawning) {
    on(event::Spawned{event.worker}, now);  // it runs, or it could not say so
  }
  become_ready(*acked, event.by, now);
}

void Pool::become_ready(Entry& entry, AckMode by, Instant now) {
  Worker& worker = entry.worker;
  worker.acked_at = now;
  touch(entry);
  note(note::Acked{worker.id, by,
                   by == AckMode::kTimer ? config_.ack_delay : now - worker.spawned_at});
  if (worker.stopping()) {
    return;
  }
  worker.state = WorkerState::kReady;
  place(entry);
  schedule(entry);
  const std::uint32_t streak = std::exchange(ledger_.deaths_before_ack, 0);
  if (streak > 0) {
    ledger_dirty_ = true;
  }
  note(note::AckCount{static_cast<std::uint32_t>(modern_ready_.size()), config_.number, streak});
  recover();
}

void Pool::recover() {
  if (ledger_.failed) {
    ledger_.failed = false;
    ledger_dirty_ = true;
    note(note::Recovered{});
  }
}

void Pool::on(const event::StatusSaid& event, Instant /*now*/) {
  if (Entry* said = entry(event.worker)) {
    said->worker.status_text = event.text;
    touch(*said);
  }
}

void Pool::on(const event::SetNumber& event, Instant /*now*/) {
  note(note::NumberChanged{config_.number, event.number});
  config_.number = event.number;
  config_dirty_ = true;
  ledger_.deaths_before_ack = 0;
  ledger_dirty_ = true;
  forget_troubles();
  recover();
}

void Pool::on(const event::LoadSeen& event, Instant now) {
  if (!wants_load()) {
    return;
  }
  Scaling::Seen seen;
  seen.queued = event.queued;
  seen.cores = event.cores;
  seen.number = config_.number;
  seen.starting = static_cast<std::uint32_t>(modern_starting_.size() + missing());
  seen.upgrading = ledger_.upgrade.has_value();
  if (std::optional<Scaling::Decision> decision = scaling_.decide(config_, seen, now)) {
    note(note::Scaled{config_.number, decision->number, std::move(decision->reason)});
    config_.number = decision->number;
    config_dirty_ = true;
  }
}

// Its step goes on, or can't be done.
void Pool::on(const event::HookEnded& event, Instant now) {
  Entry* hooked = entry(event.worker);
  if (hooked == nullptr) {
    return;
  }
  const Hook hook = std::exchange(hooked->worker.hook, Hook::kNone);
  if (hook == Hook::kBeforeStart && (!event.well || !ledger_.respawn)) {
    on(event::SpawnFailed{event.worker, event.reason,
                          event.well ? event::Blame::kNobody : event::Blame::kWorker},
       now);
  } else if (hook == Hook::kBeforeStart) {
    hooked->worker.spawned_at = now;
    touch(*hooked);
    actions_.emplace_back(Spawn{event.worker, hooked->worker.version});
  } else if (hook == Hook::kBeforeStop) {
    stop_workers({event.worker}, hooked->worker.stop_with, now, Stopping::kAtOnce);
  }
}

void Pool::on(const event::Stop& event, Instant now) {
  go_down(event.signal, now, event.sent ? Stopping::kSent : Stopping::kUsual);
}

void Pool::go_down(int signal, Instant now, Stopping how) {
  ledger_.respawn = false;
  ledger_.upgrade.reset();
  canary_at_.reset();
  ledger_dirty_ = true;
  note(note::Stopping{signal});
  std::vector<WorkerId> everybody;
  for (const Worker* worker : workers()) {
    everybody.push_back(worker->id);
  }
  stop_workers(everybody, signal, now, how);
}

void Pool::on(const event::Quit& event, Instant now) {
  go_down(event.signal, now, Stopping::kAtOnce);
  if (!ledger_.left) {
    ledger_.left = true;
    actions_.emplace_back(Leave{1});
  }
}

void Pool::on(const event::SignalAll& event, Instant /*now*/) {
  note::Signaling signaling{event.signal, {}, {}};
  for (const Worker* worker : workers()) {
    if (worker->state != WorkerState::kSpawning) {
      signaling.workers.push_back(worker->id);
    }
  }
  const std::vector<WorkerId> targets = signaling.workers;
  note(std::move(signaling));
  for (const WorkerId target : targets) {
    actions_.emplace_back(SendSignal{target, event.signal, false});
  }
}

void Pool::on(const event::Reconfigured& event, Instant /*now*/) {
  config_ = event.config;
  if (config_.workers_max > 0) {
    config_.number = std::clamp(config_.number, config_.workers_min, config_.workers_max);
  }
  config_dirty_ = true;
  for (auto& entry : slots_) {
    if (entry) {
      schedule(*entry);
    }
  }
}

void Pool::end_hook(Worker& worker) {
  if (std::exchange(worker.hook, Hook::kNone) != Hook::kNone) {
    actions_.emplace_back(EndHook{worker.id});
  }
}

// True: the signal has to wait. A later one takes its place; who has had one gets all others at
// once.
bool Pool::run_hook_before_stop(Entry& entry, int signal, Stopping how) {
  Worker& worker = entry.worker;
  if (how != Stopping::kUsual || worker.signaled.bits() != 0 ||
      (!config_.hook_before_stop && worker.hook == Hook::kNone)) {
    end_hook(worker);
    return false;
  }
  worker.stop_with = signal;
  worker.examining = false;
  if (worker.hook == Hook::kNone) {
    worker.hook = Hook::kBeforeStop;
    worker.state = WorkerState::kStopping;
    actions_.emplace_back(RunHook{worker.id, worker.version, Hook::kBeforeStop});
    place(entry);
    schedule(entry);
  }
  return true;
}

void Pool::stop_workers(const std::vector<WorkerId>& workers, int signal, Instant now,
                        Stopping how) {
  note::Signaling signaling{signal, {}, {}};
  for (const WorkerId id : workers) {
    Entry* stopped = entry(id);
    if (stopped == nullptr) {
      continue;
    }
    Worker& worker = stopped->worker;
    if (worker.hook == Hook::kBeforeStart) {
      end_hook(worker);  // it was never started, and is not any more
      remove(*stopped);
      continue;
    }
    touch(*stopped);
    if (worker.state == WorkerState::kSpawning) {
      worker.stop_wanted = true;
      worker.stop_with = signal;
      continue;
    }
    if (run_hook_before_stop(*stopped, signal, how)) {
      continue;
    }
    if (worker.signaled.has(signal)) {
      signaling.again.push_back(id);
    }
    signaling.workers.push_back(id);
    worker.signaled.add(signal);
    worker.last_signaled_at = now;
    worker.examining = false;
    worker.state = WorkerState::kStopping;
    place(*stopped);
    schedule(*stopped);
  }
  if (signaling.workers.empty()) {
    return;
  }
  const std::vector<WorkerId> targets = signaling.workers;
  if (how == Stopping::kSent) {
    return;
  }
  note(std::move(signaling));
  for (const WorkerId target : targets) {
    actions_.emplace_back(SendSignal{target, signal, signal == SIGKILL});
  }
}

std::vector<WorkerId> Pool::oldest(const Bucket& bucket, std::size_t count) const {
  std::vector<WorkerId> chosen;
  for (auto it = bucket.begin(); it != bucket.end() && chosen.size() < count; ++it) {
    chosen.push_back(*it);
  }
  return chosen;
}

}  // namespace einhorn::pool
