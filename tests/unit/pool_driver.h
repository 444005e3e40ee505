// A pool under a script: what the master does for a pool, with a clock that the test turns.
//
// Actions are carried out in their order: a Spawn becomes Spawned or SpawnFailed, as the test wants
// it; signals are only written down. Everything the pool answers is kept as one line of text each,
// so that a test says what it expects in words:
//
//   spawn 1@0 v0         the first worker ever (epoch 1) in slot 0, of version 0
//   USR2 -> 1@0          a signal to it; "KILL => 1@0" to its whole process group
//   run before-start 1@0 v0   a hook; "end hook 1@0" when nobody waits for it any more
//   leave 0              the word to the guard
//   exited 1@0 ...       everything else is a note
//
// Beside the pool a copy is kept that is fed by take_changes() alone, as the snapshot is; after
// every step both must say the same.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pool/pool.h"

namespace einhorn::pool::testing {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Lines = std::vector<std::string>;

// --- text
// -----------------------------------------------------------------------------------------
[[nodiscard]] std::string text(WorkerId worker);
[[nodiscard]] std::string text(const std::vector<WorkerId>& workers);
[[nodiscard]] std::string text(Duration duration);  // "1.5s"
[[nodiscard]] std::string text(const Note& note);
[[nodiscard]] std::string text(const Action& action);
[[nodiscard]] std::string text(const Worker& worker);
[[nodiscard]] std::string text(const Ledger& ledger);
[[nodiscard]] std::string text(const std::map<Slot, SlotTrouble>& troubles);

// A config with the ACK by command and nothing else unusual.
[[nodiscard]] Config manual(std::uint32_t number);
[[nodiscard]] Config by_timer(std::uint32_t number);

[[nodiscard]] ExitStatus exited(int code);
[[nodiscard]] ExitStatus killed(int signal);

// What a snapshot holds of a pool.
struct Kept {
  Config config;
  Ledger ledger;
  std::map<WorkerId, Worker> workers;
  std::map<Slot, SlotTrouble> troubles;
};

class Driver {
 public:
  explicit Driver(Config config);

  // --- what happens
  void start() { happen(event::Started{}); }
  void happen(const Event& event);
  void advance(Duration by);  // with a TimerDue at every deadline on the way
  void run_to_deadline();     // to the next one, which there must be
  void ack(std::uint64_t epoch, AckMode by = AckMode::kManual);
  void ack_all();  // whoever is starting
  void exit(std::uint64_t epoch, ExitStatus status = exited(0));
  void exit_stopping();   // everybody who was told to
  void settle_upgrade();  // ACKs and exits until nothing moves any more

  // --- how it happens
  std::function<std::optional<std::string>(const Spawn&)> refuse_spawn;  // a reason: it fails
  bool hold_spawns = false;  // outcomes wait for release_spawns()
  void release_spawns();
  bool hold_hooks = false;  // the test says itself how they end
  void end_hook(std::uint64_t epoch, bool well = true);
  std::size_t restore_before_step = SIZE_MAX;  // the pool is made anew from the copy, then

  // --- what one sees
  Lines take();                            // all lines since the last time
  Lines take(std::string_view beginning);  // only those; the others are dropped too
  Lines take_acts();                       // no notes
  [[nodiscard]] WorkerId id(std::uint64_t epoch) const;
  [[nodiscard]] const Worker* find(std::uint64_t epoch) const;
  [[nodiscard]] std::vector<std::uint64_t> in(WorkerState state) const;
  [[nodiscard]] std::vector<std::uint64_t> of(Version version, WorkerState state) const;
  [[nodiscard]] std::size_t steps() const { return steps_; }
  [[nodiscard]] Instant now() const { return now_; }
  [[nodiscard]] Pool& pool() { return *pool_; }
  [[nodiscard]] const Pool& pool() const { return *pool_; }
  [[nodiscard]] std::optional<Duration> until_deadline() const;
  [[nodiscard]] const Kept& kept() const { return kept_; }
  [[nodiscard]] const Lines& everything() const { return everything_; }
  // The fewest ready workers there were while an upgrade was going on.
  [[nodiscard]] std::size_t least_ready() const { return least_ready_; }
  void watch_ready() { least_ready_ = SIZE_MAX; }

  // A pool from a snapshot instead of the one there is.
  void restore();

 private:
  void drain();
  void step(const Event& event);
  void carry_out(const Action& action);
  void keep_changes();
  void check();

  std::unique_ptr<Pool> pool_;
  Instant now_{seconds{1000}};
  std::deque<Event> events_;
  std::vector<Event> held_;
  Kept kept_;
  Lines lines_;
  Lines everything_;
  std::set<std::uint64_t> epochs_;
  std::size_t steps_ = 0;
  std::size_t least_ready_ = SIZE_MAX;
};

}  // namespace einhorn::pool::testing
