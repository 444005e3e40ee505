#include "pool_driver.h"

#include <cmath>
#include <sstream>

namespace einhorn::pool::testing {
namespace {

std::string version_text(Version version) { return "v" + std::to_string(version.value); }

std::string mode_text(AckMode mode) {
  switch (mode) {
    case AckMode::kTimer:
      return "timer";
    case AckMode::kManual:
      return "manual";
    case AckMode::kNotify:
      return "notify";
    case AckMode::kListen:
      return "listen";
  }
  return "?";
}

// Has no branch for anything: a new kind of note does not compile until it is listed here.
struct NoteText {
  std::string operator()(const note::Launching& n) const {
    return "launching " + std::to_string(n.count);
  }
  std::string operator()(const note::Launched& n) const {
    return "launched " + text(n.worker) + " " + version_text(n.version);
  }
  std::string operator()(const note::LaunchFailed& n) const {
    return "launch failed " + text(n.worker) + " " + version_text(n.version) + ": " + n.reason;
  }
  std::string operator()(const note::Exited& n) const {
    return "exited " + text(n.worker) + (n.before_ack ? " before ACK" : "") +
           (n.stopping ? " stopping" : "");
  }
  std::string operator()(const note::Acked& n) const {
    return "acked " + text(n.worker) + " " + mode_text(n.by) + " after " + text(n.after);
  }
  std::string operator()(const note::AckCount& n) const {
    return "up to " + std::to_string(n.ready) + "/" + std::to_string(n.target) +
           (n.streak > 0 ? " breaking " + std::to_string(n.streak) : "");
  }
  std::string operator()(const note::AckRefused& n) const {
    return "ack refused " + text(n.worker) + " " + mode_text(n.by) +
           (n.repeated ? " repeated" : " wrong mode");
  }
  std::string operator()(const note::AckOverdue& n) const {
    return "ack overdue " + text(n.worker) + " " + text(n.waited);
  }
  std::string operator()(const note::AckMissed& n) const {
    return "ack missed " + text(n.worker) + " " + text(n.waited);
  }
  std::string operator()(const note::Signaling& n) const {
    return "signaling " + signal_name(n.signal) + " " + text(n.workers) +
           (n.again.empty() ? "" : " again " + text(n.again));
  }
  std::string operator()(const note::Killing& n) const {
    return "killing " + text(n.worker) + " after " + text(n.after);
  }
  std::string operator()(const note::BackingOff& n) const {
    return "backing off " + text(n.interval) + " deaths " + std::to_string(n.deaths);
  }
  std::string operator()(const note::UpgradeStarted& n) const {
    return std::string("upgrade ") + (n.smooth ? "smooth " : "fleet ") + version_text(n.from) +
           "->" + version_text(n.to) +
           (n.again ? " again, " + std::to_string(n.ready) + " ready" : "");
  }
  std::string operator()(const note::CanaryProved& n) const {
    return "proved " + version_text(n.version) + " by " + std::to_string(n.workers);
  }
  std::string operator()(const note::CullingOld& n) const {
    return "culling " + std::to_string(n.count) + " old" + (n.smooth ? " smoothly" : "");
  }
  std::string operator()(const note::CullingExcess& n) const {
    return "culling " + std::to_string(n.count) + " excess";
  }
  std::string operator()(const note::Upgraded& n) const {
    return "upgraded " + version_text(n.version);
  }
  std::string operator()(const note::UpgradeFailed& n) const {
    std::string line =
        "upgrade failed " + version_text(n.from) + "->" + version_text(n.to) + ": " + n.reason;
    for (const std::string& failure : n.failures) {
      line += "; " + failure;
    }
    return line;
  }
  std::string operator()(const note::RollBackStarted& n) const {
    return "rolling back " + version_text(n.from) + "->" + version_text(n.to);
  }
  std::string operator()(const note::RolledBack& n) const {
    return "rolled back " + version_text(n.version);
  }
  std::string operator()(const note::RollBackRefused& n) const {
    return "roll-back refused: " + n.reason;
  }
  std::string operator()(const note::RollBackIncomplete& n) const {
    return "roll-back incomplete " + version_text(n.version) + ": " + n.reason;
  }
  std::string operator()(const note::Scaled& n) const {
    return "scaled " + std::to_string(n.from) + " -> " + std::to_string(n.to) + ": " + n.reason;
  }
  std::string operator()(const note::NumberChanged& n) const {
    return "number " + std::to_string(n.from) + "->" + std::to_string(n.to);
  }
  std::string operator()(const note::GaveUp& n) const {
    return "gave up after " + std::to_string(n.deaths);
  }
  std::string operator()(const note::Recovered& /*n*/) const { return "recovered"; }
  std::string operator()(const note::Condemned& n) const {
    return std::string(n.killed ? "killed " : "condemned ") + text(n.worker) + " " +
           std::string(name(n.ailment)) + ": " + n.complaint;
  }
  std::string operator()(const note::Ailing& n) const {
    return "ailing " + text(n.worker) + " " + std::string(name(n.ailment)) + ": " + n.complaint;
  }
  std::string operator()(const note::Recycling& n) const {
    return "recycling " + text(n.worker) + " " + std::string(name(n.ailment));
  }
  std::string operator()(const note::Recycled& n) const { return "recycled " + text(n.workers); }
  std::string operator()(const note::ProbeFailed& n) const {
    return "probe failed " + text(n.worker) + " " + std::to_string(n.failures) + "/" +
           std::to_string(n.most) + ": " + n.detail;
  }
  std::string operator()(const note::SlotPaused& n) const {
    return "paused @" + std::to_string(n.slot.value) + " after " + std::to_string(n.deaths) +
           (n.pause ? " for " + text(*n.pause) + " retry " + std::to_string(n.retry) + "/" +
                          std::to_string(n.retries)
                    : " given up");
  }
  std::string operator()(const note::SlotResumed& n) const {
    return "resumed @" + std::to_string(n.slot.value);
  }
  std::string operator()(const note::Stopping& n) const {
    return "stopping " + signal_name(n.signal);
  }
  std::string operator()(const note::Gone& /*n*/) const { return "gone"; }
};

struct ActionText {
  std::string operator()(const Spawn& a) const {
    return "spawn " + text(a.worker) + " " + version_text(a.version);
  }
  std::string operator()(const SendSignal& a) const {
    return signal_name(a.signal) + (a.group ? " => " : " -> ") + text(a.worker);
  }
  std::string operator()(const TakeSamples& a) const { return "sample " + text(a.workers); }
  std::string operator()(const TakeProbe& a) const { return "probe " + text(a.worker); }
  std::string operator()(const Examine& a) const { return "examine " + text(a.worker); }
  std::string operator()(const RunHook& a) const {
    return "run " + std::string(name(a.hook)) + " " + text(a.worker) + " " +
           version_text(a.version);
  }
  std::string operator()(const EndHook& a) const { return "end hook " + text(a.worker); }
  std::string operator()(const Note& a) const { return text(a); }
  std::string operator()(const Leave& a) const { return "leave " + std::to_string(a.exit_code); }
};

std::string at(std::optional<Instant> instant) {
  return instant ? std::to_string(instant->time_since_epoch().count()) : "-";
}

}  // namespace

std::string text(WorkerId worker) {
  return std::to_string(worker.epoch.value) + "@" + std::to_string(worker.slot.value);
}

std::string text(const std::vector<WorkerId>& workers) {
  std::string line = "[";
  for (const WorkerId worker : workers) {
    line += (line.size() > 1 ? " " : "") + text(worker);
  }
  return line + "]";
}

std::string text(Duration duration) {
  std::ostringstream out;
  out << to_seconds(duration) << "s";
  return out.str();
}

std::string text(const Note& note) { return std::visit(NoteText{}, note); }
std::string text(const Action& action) { return std::visit(ActionText{}, action); }

std::string text(const Worker& worker) {
  std::ostringstream out;
  out << text(worker.id) << " v" << worker.version.value << " " << name(worker.state) << " spawned "
      << at(worker.spawned_at) << " acked " << at(worker.acked_at) << " signaled "
      << worker.signaled.bits() << " at " << at(worker.last_signaled_at) << " missed "
      << worker.missed_ack << " stop wanted " << worker.stop_wanted << worker.stop_with << " ping "
      << at(worker.pinged_at) << worker.pinged_request_id << " says " << worker.status_text
      << " requests " << worker.requests << worker.last_request_id << " " << name(worker.ailment)
      << " " << worker.complaint << at(worker.ailing_since) << worker.condemned << worker.examining
      << worker.recycling << " hook " << name(worker.hook);
  for (const BusyRequest& request : worker.busy) {
    out << " busy " << request.id << at(request.since);
  }
  return out.str();
}

std::string text(const Ledger& ledger) {
  std::ostringstream out;
  out << "v" << ledger.version.value << " newest " << ledger.newest.value << " proved "
      << ledger.proved.value << " previous "
      << (ledger.previous ? std::to_string(ledger.previous->value) : "-") << " epoch "
      << ledger.next_epoch << " streak " << ledger.deaths_before_ack << " burst "
      << ledger.burst_left << " deaths " << ledger.deaths << " spinup " << at(ledger.last_spinup)
      << " upgraded " << at(ledger.last_upgraded) << " respawn " << ledger.respawn << " failed "
      << ledger.failed << " left " << ledger.left << " failure " << ledger.failure << " quick "
      << ledger.quick_deaths << " since " << at(ledger.quick_deaths_since);
  if (ledger.upgrade) {
    const UpgradeProgress& upgrade = *ledger.upgrade;
    out << " upgrade " << upgrade.from.value << "->" << upgrade.to.value << upgrade.smooth
        << upgrade.rollback << upgrade.going_back << upgrade.proved << upgrade.failures << " since "
        << at(upgrade.started_at);
    for (const std::string& report : upgrade.reports) {
      out << "; " << report;
    }
  }
  return out.str();
}

std::string text(const std::map<Slot, SlotTrouble>& troubles) {
  std::ostringstream out;
  for (const auto& [slot, trouble] : troubles) {
    out << "@" << slot.value << " until " << at(trouble.paused_until) << " first "
        << at(trouble.first_pause) << " retries " << trouble.retries << trouble.given_up;
    for (const Instant death : trouble.deaths) {
      out << " " << at(death);
    }
  }
  return out.str();
}

Config manual(std::uint32_t number) {
  Config config;
  config.number = number;
  config.ack_mode = AckMode::kManual;
  config.max_unacked = 100;
  return config;
}

Config by_timer(std::uint32_t number) {
  Config config = manual(number);
  config.ack_mode = AckMode::kTimer;
  return config;
}

ExitStatus exited(int code) { return {ExitStatus::Kind::kExited, code, false}; }
ExitStatus killed(int signal) { return {ExitStatus::Kind::kSignaled, signal, false}; }

Driver::Driver(Config config) : pool_(std::make_unique<Pool>(config)) { keep_changes(); }

void Driver::happen(const Event& event) {
  events_.push_back(event);
  drain();
}

// As the master: every event to its end, and what is due by then as well.
void Driver::drain() {
  for (int turns = 0; turns < 10'000; ++turns) {
    while (!events_.empty()) {
      const Event event = std::move(events_.front());
      events_.pop_front();
      step(event);
    }
    const std::optional<Instant> due = pool_->next_deadline();
    if (!due || *due > now_) {
      return;
    }
    events_.emplace_back(event::TimerDue{});
  }
  ADD_FAILURE() << "the pool always has something to do at once";
}

void Driver::step(const Event& event) {
  if (steps_++ == restore_before_step) {
    restore();
  }
  const std::vector<Action> actions = pool_->step(event, now_);
  for (const Action& action : actions) {
    lines_.push_back(text(action));
    everything_.push_back(lines_.back());
  }
  keep_changes();
  check();
  const std::size_t outcomes_from = events_.size();
  for (const Action& action : actions) {
    carry_out(action);
  }
  std::rotate(events_.begin(), events_.begin() + static_cast<std::ptrdiff_t>(outcomes_from),
              events_.end());
}

void Driver::carry_out(const Action& action) {
  const auto* hook = std::get_if<RunHook>(&action);
  if (hook != nullptr && !hold_hooks) {
    events_.emplace_back(event::HookEnded{hook->worker});
  }
  const auto* spawn = std::get_if<Spawn>(&action);
  if (spawn == nullptr) {
    return;
  }
  EXPECT_TRUE(epochs_.insert(spawn->worker.epoch.value).second) << "an epoch was used twice";
  std::optional<std::string> refused;
  if (refuse_spawn) {
    refused = refuse_spawn(*spawn);
  }
  const Event outcome = refused ? Event(event::SpawnFailed{spawn->worker, *refused})
                                : Event(event::Spawned{spawn->worker});
  if (hold_spawns) {
    held_.push_back(outcome);
  } else {
    events_.push_back(outcome);
  }
}

void Driver::keep_changes() {
  const Pool::Changes changes = pool_->take_changes();
  if (changes.config) {
    kept_.config = pool_->config();
  }
  if (changes.ledger) {
    kept_.ledger = pool_->ledger();
  }
  for (const WorkerId worker : changes.changed) {
    kept_.workers[worker] = *pool_->find(worker);
  }
  for (const WorkerId worker : changes.gone) {
    kept_.workers.erase(worker);
  }
  for (const SlotTrouble& slot : changes.slots) {
    if (slot.empty()) {
      kept_.troubles.erase(slot.slot);
    } else {
      kept_.troubles[slot.slot] = slot;
    }
  }
}

void Driver::check() {
  EXPECT_EQ(text(kept_.ledger), text(pool_->ledger())) << "a change of the ledger was not told";
  std::set<std::string> alive;
  std::set<std::uint32_t> slots;
  std::size_t ready = 0;
  for (const Worker* worker : pool_->workers()) {
    alive.insert(text(*worker));
    EXPECT_TRUE(slots.insert(worker->id.slot.value).second) << "a slot has two workers";
    ready += worker->state == WorkerState::kReady ? 1 : 0;
  }
  std::set<std::string> kept;
  for (const auto& [id, worker] : kept_.workers) {
    kept.insert(text(worker));
  }
  EXPECT_EQ(kept, alive) << "a change of a worker was not told";
  EXPECT_EQ(text(kept_.troubles), text(pool_->troubles())) << "a change of a slot was not told";
  EXPECT_EQ(pool_->alive(), alive.size());
  EXPECT_EQ(pool_->ready(), ready);
  least_ready_ = std::min(least_ready_, ready);
}

void Driver::restore() {
  std::map<Epoch, Worker> by_epoch;
  for (const auto& [id, worker] : kept_.workers) {
    by_epoch[id.epoch] = worker;
  }
  std::vector<Worker> workers;
  workers.reserve(by_epoch.size());
  for (const auto& [epoch, worker] : by_epoch) {
    workers.push_back(worker);
  }
  std::vector<SlotTrouble> troubles;
  for (const auto& [slot, trouble] : kept_.troubles) {
    troubles.push_back(trouble);
  }
  pool_ =
      std::make_unique<Pool>(kept_.config, kept_.ledger, std::move(workers), std::move(troubles));
}

void Driver::release_spawns() {
  hold_spawns = false;
  for (Event& outcome : std::exchange(held_, {})) {
    events_.push_back(std::move(outcome));
  }
  drain();
}

void Driver::advance(Duration by) {
  const Instant until = now_ + by;
  for (int turns = 0; turns < 100'000; ++turns) {
    const std::optional<Instant> due = pool_->next_deadline();
    if (!due || *due > until) {
      now_ = until;
      return;
    }
    now_ = std::max(now_, *due);
    drain();
  }
  ADD_FAILURE() << "the pool never stops waking up";
}

void Driver::run_to_deadline() {
  const std::optional<Instant> due = pool_->next_deadline();
  ASSERT_TRUE(due.has_value()) << "the pool waits for nothing";
  now_ = std::max(now_, *due);
  drain();
}

void Driver::end_hook(std::uint64_t epoch, bool well) {
  happen(event::HookEnded{id(epoch), well, well ? "" : "its hook exited with status 1"});
}

void Driver::ack(std::uint64_t epoch, AckMode by) { happen(event::Acked{id(epoch), by}); }

void Driver::ack_all() {
  for (const std::uint64_t epoch : in(WorkerState::kStarting)) {
    ack(epoch, pool_->config().ack_mode);
  }
}

void Driver::exit(std::uint64_t epoch, ExitStatus status) {
  happen(event::Exited{id(epoch), status});
}

void Driver::exit_stopping() {
  for (const std::uint64_t epoch : in(WorkerState::kStopping)) {
    exit(epoch);
  }
}

void Driver::settle_upgrade() {
  for (int turns = 0; turns < 1000; ++turns) {
    if (in(WorkerState::kStarting).empty() && in(WorkerState::kStopping).empty()) {
      return;
    }
    ack_all();
    exit_stopping();
  }
  ADD_FAILURE() << "the pool does not come to rest";
}

Lines Driver::take() { return std::exchange(lines_, {}); }

Lines Driver::take(std::string_view beginning) {
  Lines chosen;
  for (const std::string& line : std::exchange(lines_, {})) {
    if (line.starts_with(beginning)) {
      chosen.push_back(line);
    }
  }
  return chosen;
}

Lines Driver::take_acts() {
  Lines chosen;
  for (const std::string& line : std::exchange(lines_, {})) {
    if (line.starts_with("spawn ") || line.starts_with("leave ") || line.starts_with("run ") ||
        line.starts_with("end hook ") || line.find(" -> ") != std::string::npos ||
        line.find(" => ") != std::string::npos) {
      chosen.push_back(line);
    }
  }
  return chosen;
}

const Worker* Driver::find(std::uint64_t epoch) const {
  for (const Worker* worker : pool_->workers()) {
    if (worker->id.epoch.value == epoch) {
      return worker;
    }
  }
  return nullptr;
}

WorkerId Driver::id(std::uint64_t epoch) const {
  const Worker* worker = find(epoch);
  EXPECT_NE(worker, nullptr) << "there is no worker " << epoch;
  return worker != nullptr ? worker->id : WorkerId{};
}

std::vector<std::uint64_t> Driver::in(WorkerState state) const {
  std::vector<std::uint64_t> epochs;
  for (const Worker* worker : pool_->workers()) {
    if (worker->state == state) {
      epochs.push_back(worker->id.epoch.value);
    }
  }
  return epochs;
}

std::vector<std::uint64_t> Driver::of(Version version, WorkerState state) const {
  std::vector<std::uint64_t> epochs;
  for (const Worker* worker : pool_->workers()) {
    if (worker->state == state && worker->version == version) {
      epochs.push_back(worker->id.epoch.value);
    }
  }
  return epochs;
}

std::optional<Duration> Driver::until_deadline() const {
  const std::optional<Instant> due = pool_->next_deadline();
  return due ? std::optional<Duration>(*due - now_) : std::nullopt;
}

}  // namespace einhorn::pool::testing
