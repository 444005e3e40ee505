// The pool with bytes as events: outcomes late or never, deaths at any time, commands in any order,
// masters that go and come back. After every step the invariants of pool/pool.h must hold, and when
// nothing is wrong any more the pool gets to its full number.
#include "pool/pool.h"

#include <algorithm>
#include <csignal>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"
#include "wire/snapshot.h"

namespace einhorn::fuzz {
namespace {

using pool::AckMode;
using pool::Pool;
using pool::Worker;
using pool::WorkerState;
namespace event = pool::event;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::size_t kMaxEvents = 300;
constexpr int kMaxSteps = 2000;  // after which there are no more events
constexpr std::uint8_t kMostWorkers = 12;
constexpr int kPersistedEvery = 32;  // steps: it costs more than all the rest

// Milliseconds up to some hours; each number as likely as small ones.
Duration some_time(Choices& choices) {
  const std::uint8_t exponent = choices.below(15);
  return milliseconds{(std::int64_t{1} + choices.byte()) << exponent >> 8U};
}

std::optional<Duration> perhaps_time(Choices& choices) {
  if (!choices.flag()) {
    return std::nullopt;
  }
  return std::max<Duration>(some_time(choices), milliseconds{1});
}

pool::Config some_config(Choices& choices) {
  pool::Config config;
  config.number = 1U + choices.below(kMostWorkers - 1);
  config.ack_mode = static_cast<AckMode>(choices.below(2));
  config.ack_delay = some_time(choices);
  config.ack_timeout = some_time(choices);
  config.seconds = perhaps_time(choices);
  config.max_unacked = 1U + choices.below(7);
  config.max_unacked_given = choices.flag();
  if (choices.flag()) {
    config.max_upgrade_additional = 1U + choices.below(7);
  }
  config.signal_timeout = perhaps_time(choices);
  config.drain_timeout = perhaps_time(choices);
  config.give_up = choices.below(7);
  config.canary = choices.below(15);
  config.canary_seconds = some_time(choices);
  config.upgrade_failures = choices.below(7);
  config.upgrade_timeout = perhaps_time(choices);
  return config;
}

std::string text(WorkerId id) {
  return "worker " + std::to_string(id.slot.value) + " of epoch " + std::to_string(id.epoch.value);
}

class Life {
 public:
  explicit Life(Choices choices)
      : choices_(choices), config_(some_config(choices_)), first_number_(config_.number) {
    pool_ = std::make_unique<Pool>(config_);
    step(event::Started{});
  }

  void live() {
    for (std::size_t i = 0; i < kMaxEvents && !choices_.empty() && !left_; ++i) {
      if (steps_ > kMaxSteps) {
        break;
      }
      happen();
    }
    check_persisted();
    settle();
    leave();
  }

 private:
  // --- the world ---------------------------------------------------------------------------------
  void happen() {
    switch (choices_.below(17)) {
      case 0:
      case 1:
        return advance(some_time(choices_));
      case 2:
        return to_deadline();
      case 3:
      case 4:
        return end_spawn(choices_.byte(), choices_.flag());
      case 5:
        return step(event::Exited{some_worker(), some_end()});
      case 6:
      case 7:
        return step(event::Acked{some_worker(), config_.ack_mode});
      case 8:
        return step(event::Acked{some_worker(), static_cast<AckMode>(choices_.below(2))});
      case 9:
        step(event::Pinged{some_worker(), "7"});
        return step(event::StatusSaid{some_worker(), "busy"});
      case 10:
        return step(event::SetNumber{1U + choices_.below(kMostWorkers - 1)});
      case 11:
        return step(event::Upgrade{choices_.flag(), choices_.flag()});
      case 12:
        return step(event::RollBack{});
      case 13:
        return restore();
      case 14:
        return choices_.byte() < 16 ? stop() : step(event::SignalAll{SIGUSR1});
      case 15:
        config_ = some_config(choices_);
        return step(event::Reconfigured{config_});
      case 16:  // who is not there, or has been long ago
        return stranger();
      default:
        return ack_everybody();
    }
  }

  void stop() {
    if (choices_.flag()) {
      step(event::Quit{SIGQUIT});
    } else {
      step(event::Stop{SIGTERM, choices_.flag()});
    }
  }

  void stranger() {
    const WorkerId id{Slot{choices_.byte()}, Epoch{1000U + choices_.byte()}};
    step(event::Spawned{id});
    step(event::SpawnFailed{id, "nobody"});
    step(event::Acked{id, config_.ack_mode});
    step(event::Exited{id, some_end()});
  }

  pool::ExitStatus some_end() {
    return {static_cast<pool::ExitStatus::Kind>(choices_.below(2)), choices_.byte() & 63, false};
  }

  WorkerId some_worker() {
    const std::vector<const Worker*> workers = pool_->workers();
    const std::uint8_t which = choices_.byte();
    return workers.empty() ? WorkerId{} : workers[which % workers.size()]->id;
  }

  void ack_everybody() {
    for (const Worker* worker : workers_in(WorkerState::kStarting)) {
      step(event::Acked{worker->id, config_.ack_mode});
    }
  }

  void end_spawn(std::uint8_t which, bool fails) {
    if (unborn_.empty()) {
      return;
    }
    const WorkerId id = unborn_[which % unborn_.size()];
    std::erase(unborn_, id);
    if (fails) {
      step(event::SpawnFailed{id, "out of luck"});
    } else {
      step(event::Spawned{id});
    }
  }

  std::vector<const Worker*> workers_in(WorkerState state) const {
    std::vector<const Worker*> chosen;
    for (const Worker* worker : pool_->workers()) {
      if (worker->state == state) {
        chosen.push_back(worker);
      }
    }
    return chosen;
  }

  // --- time --------------------------------------------------------------------------------------
  void due() {
    for (int turns = 0; !left_; ++turns) {
      const std::optional<Instant> deadline = pool_->next_deadline();
      if (!deadline || *deadline > now_) {
        return;
      }
      holds(turns < 200, "no-spinning", "the pool always has something to do at once");
      step(event::TimerDue{});
    }
  }

  void advance(Duration by) {
    const Instant to = now_ + by;
    due();
    for (int turns = 0; turns < 50 && !left_; ++turns) {
      const std::optional<Instant> deadline = pool_->next_deadline();
      if (!deadline || *deadline > to) {
        now_ = to;
        return;
      }
      now_ = *deadline;
      due();
    }
  }

  void to_deadline() {
    due();
    if (const std::optional<Instant> deadline = pool_->next_deadline(); deadline && !left_) {
      now_ = std::max(now_, *deadline);
      due();
    }
  }

  // --- the master --------------------------------------------------------------------------------
  void step(const pool::Event& event) {
    if (left_) {
      return;
    }
    std::set<std::uint64_t> unborn;
    for (const Worker* worker : workers_in(WorkerState::kSpawning)) {
      unborn.insert(worker->id.epoch.value);
    }
    const std::vector<pool::Action> actions = pool_->step(event, now_);
    keep_changes();
    for (const pool::Action& action : actions) {
      if (const auto* spawn = std::get_if<pool::Spawn>(&action)) {
        on_spawn(*spawn);
      } else if (const auto* signal = std::get_if<pool::SendSignal>(&action)) {
        on_signal(*signal, unborn.contains(signal->worker.epoch.value));
      } else if (std::holds_alternative<pool::Leave>(action)) {
        holds(!left_, "leaves-once");
        left_ = true;
      }
    }
    check();
  }

  // The next master begins with what this one has written down.
  void restore() {
    check_persisted();
    std::vector<Worker> workers;
    for (const auto& [epoch, record] : kept_.workers) {
      workers.push_back(record.worker);
    }
    pool_ = std::make_unique<Pool>(kept_.config, kept_.ledger, workers);
    holds(pool_->alive() == workers.size(), "handoff", "a worker was lost");
    for (const Worker& was : workers) {
      const Worker* is = pool_->find(was.id);
      holds(is != nullptr && is->state == was.state && is->version == was.version &&
                is->acked_at == was.acked_at && is->signaled.bits() == was.signaled.bits(),
            "handoff", text(was.id) + " is not what it was");
    }
    keep_changes();
    due();
  }

  void keep_changes() {
    const Pool::Changes changes = pool_->take_changes();
    if (changes.config) {
      kept_.config = pool_->config();
    }
    if (changes.ledger) {
      kept_.ledger = pool_->ledger();
    }
    for (const WorkerId id : changes.changed) {
      const Worker* worker = pool_->find(id);
      holds(worker != nullptr, "persisted", text(id) + " changed, and is gone");
      kept_.workers[id.epoch].worker = *worker;
    }
    for (const WorkerId id : changes.gone) {
      kept_.workers.erase(id.epoch);
    }
  }

  // --- what must hold ----------------------------------------------------------------------------
  void on_spawn(const pool::Spawn& spawn) {
    const WorkerId id = spawn.worker;
    holds(epochs_.insert(id.epoch.value).second, "identity", text(id) + ": the epoch was used");
    const Worker* worker = pool_->find(id);
    holds(worker != nullptr && worker->state == WorkerState::kSpawning &&
              worker->version == spawn.version,
          "no-stranger", text(id) + " is started, and the pool does not know it");
    unborn_.push_back(id);
    const pool::Config& config = pool_->config();
    const pool::Ledger& ledger = pool_->ledger();
    const bool first_fill = id.epoch.value <= first_number_;
    const bool fleet = ledger.upgrade && !ledger.upgrade->smooth;
    holds(!config.max_unacked_given || first_fill || fleet || worker->version != ledger.version ||
              pool_->starting() <= config.max_unacked,
          "pacing", std::to_string(pool_->starting()) + " workers are starting");
  }

  void on_signal(const pool::SendSignal& signal, bool unborn_before) {
    const Worker* worker = pool_->find(signal.worker);
    holds(worker != nullptr, "no-stranger", text(signal.worker) + " is signaled, and unknown");
    holds(worker->state != WorkerState::kSpawning, "no-stranger",
          text(signal.worker) + " is signaled before it runs");
    const pool::Ledger& ledger = pool_->ledger();
    // One whose ACK was quicker than the outcome of its spawn may be stopping from the beginning.
    if (!worker->stopping() || !stopped_.insert(worker->id.epoch.value).second || !ledger.respawn ||
        !worker->acked() || unborn_before) {
      return;
    }
    holds(pool_->ready() >= pool_->config().number, "capacity",
          text(worker->id) + " is stopped, and only " + std::to_string(pool_->ready()) +
              " are ready");
    holds(!ledger.upgrade || ledger.upgrade->proved || worker->version == ledger.version ||
              pool_->ready() > pool_->modern_ready(),
          "rollback", "the last ready worker of the old version is stopped");
  }

  [[nodiscard]] bool stable() const {
    const pool::Ledger& ledger = pool_->ledger();
    const std::uint32_t number = pool_->config().number;
    return ledger.respawn && !ledger.failed && !ledger.upgrade && pool_->alive() == number &&
           pool_->modern_ready() == number;
  }

  void check() {
    std::set<std::uint32_t> slots;
    std::size_t ready = 0;
    for (const Worker* worker : pool_->workers()) {
      holds(slots.insert(worker->id.slot.value).second, "identity", "a slot has two workers");
      ready += worker->state == WorkerState::kReady ? 1 : 0;
    }
    holds(pool_->alive() == slots.size() && pool_->ready() == ready, "counts");
    holds(slots.empty() || *slots.rbegin() < epochs_.size(), "identity", "slots are the lowest");
    holds(!stable() || !pool_->next_deadline() || *pool_->next_deadline() <= now_, "quiet",
          "a stable pool waits for something");
    if (++steps_ % kPersistedEvery == 0) {
      check_persisted();
    }
  }

  void check_persisted() const {
    holds(wire::encode_entry(kept_.config) == wire::encode_entry(pool_->config()), "persisted",
          "a change of the configuration was not told");
    holds(wire::encode_entry(kept_.ledger) == wire::encode_entry(pool_->ledger()), "persisted",
          "a change of the ledger was not told");
    const std::vector<const Worker*> workers = pool_->workers();
    holds(kept_.workers.size() == workers.size(), "persisted", "a worker's end was not told");
    for (const Worker* worker : workers) {
      const auto record = kept_.workers.find(worker->id.epoch);
      holds(record != kept_.workers.end() &&
                wire::encode_entry(record->second) ==
                    wire::encode_entry(wire::WorkerRecord{*worker, 0, false}),
            "persisted", "a change of " + text(worker->id) + " was not told");
    }
  }

  // Faults off: what was asked for comes true.
  void settle() {
    if (left_ || !pool_->ledger().respawn) {
      return;
    }
    step(event::SetNumber{pool_->config().number});  // which a pool that gave up needs
    for (int turns = 0; turns < 300 && !stable(); ++turns) {
      while (!unborn_.empty()) {
        end_spawn(0, false);
      }
      for (const Worker* worker : workers_in(WorkerState::kStopping)) {
        step(event::Exited{worker->id, {}});
      }
      if (config_.ack_mode == AckMode::kTimer || workers_in(WorkerState::kStarting).empty()) {
        to_deadline();
      }
      if (config_.ack_mode != AckMode::kTimer) {
        ack_everybody();
      }
    }
    holds(stable(), "target",
          std::to_string(pool_->modern_ready()) + " of " + std::to_string(pool_->config().number) +
              " are ready");
    due();
    holds(!pool_->next_deadline(), "quiet", "a stable pool waits for something");
  }

  void leave() {
    step(event::Stop{SIGTERM, false});
    while (!unborn_.empty() && !left_) {
      end_spawn(0, false);
    }
    for (const Worker* worker : pool_->workers()) {
      step(event::Exited{worker->id, {}});
    }
    holds(left_, "leaves", "nobody is left, and the pool stays");
  }

  Choices choices_;
  pool::Config config_;
  std::uint32_t first_number_;
  std::unique_ptr<Pool> pool_;
  Instant now_{seconds{1000}};
  wire::Snapshot kept_;
  std::vector<WorkerId> unborn_;  // whose spawn has no outcome yet
  std::set<std::uint64_t> epochs_;
  std::set<std::uint64_t> stopped_;  // epochs whose stop signal was looked at
  int steps_ = 0;
  bool left_ = false;
};

}  // namespace

void run(std::string_view input) { Life(Choices(input)).live(); }

}  // namespace einhorn::fuzz
