// The pool: every decision about how workers live and die, and nothing else.
//
// `step(event, now)` takes what happened and answers what is to be done. It makes no system call,
// reads no clock and knows no descriptor and no pid: the master carries out the actions in their
// order and reports each outcome as another event.
//
// Words. The *target version* is the one that new workers get. A worker of the target version is
// *modern*, any other one is *old*. The *number* is how many modern workers are wanted.
//
// Invariants (checked by the simulation after every step):
//   capacity   while a newer version comes up, ready workers (of any version, not stopping) never
//   fall
//              below the number because of something the pool did
//   identity   slots are unique among living workers; an epoch is used once
//   rollback   until the target version has proved itself, old ready workers are never all stopped
//   pacing     at most max_unacked modern workers are starting at a time, except for the first
//              fill, a fleet upgrade and (unless max_unacked was asked for) replacements of
//              workers that had been up for a while
//   quiet      next_deadline() is none when nothing is to be waited for; a pool that watches its
//              workers (HealthRules::watches) waits for what they may do
//   recycling  no more than max_recycling ailing workers are being replaced at a time, and each is
//              told to stop only when its replacement is ready
//
// Cost: a step takes O(log n) for n workers, except an upgrade's start, `stop` and restoring, O(n).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pool/config.h"
#include "pool/event.h"
#include "pool/scaling.h"
#include "pool/worker.h"

namespace einhorn::pool {

// An upgrade (or a roll-back, which is one to an older version) that is under way.
struct UpgradeProgress {
  Version from;
  Version to;
  bool smooth = true;
  bool rollback = true;     // failing leads to a roll-back
  bool going_back = false;  // this is the roll-back
  bool proved = false;      // the canaries have done their time
  std::uint32_t failures = 0;
  Instant started_at;
  std::vector<std::string> reports;  // how new workers failed; the first few
};

// Everything about a pool that is not one worker's. Goes into the snapshot as one record.
struct Ledger {
  Version version;                  // the target version
  Version newest;                   // the highest number ever given
  Version proved;                   // the last version that came up completely
  std::optional<Version> previous;  // the one before it
  std::uint64_t next_epoch = 1;
  std::uint32_t deaths_before_ack = 0;
  std::uint32_t burst_left = 0;  // spawns that max_unacked does not hold back
  std::uint64_t deaths = 0;      // workers that ended without being told to
  std::optional<Instant> last_spinup;
  std::optional<Instant> last_upgraded;
  bool respawn = true;
  bool failed = false;
  bool left = false;
  std::string failure;  // why the last upgrade failed; "" if it did not
  std::optional<UpgradeProgress> upgrade;
  std::uint32_t quick_deaths = 0;  // right after their ACK, since then
  Instant quick_deaths_since;
};

class Pool {
 public:
  explicit Pool(Config config);
  // A pool as it was, from a snapshot. The master then reports which workers are gone. A TimerDue
  // is due at once: what was waited for is worked out anew.
  Pool(Config config, Ledger ledger, std::vector<Worker> workers,
       std::vector<SlotTrouble> troubles = {});

  // The actions stay valid until the next step.
  const std::vector<Action>& step(const Event& event, Instant now);

  // When a TimerDue is wanted; none: never.
  [[nodiscard]] std::optional<Instant> next_deadline() const;

  [[nodiscard]] const Config& config() const { return config_; }
  [[nodiscard]] const Ledger& ledger() const { return ledger_; }

  // Null if that worker is gone (or its slot has another one).
  [[nodiscard]] const Worker* find(WorkerId worker) const;
  // In the order of their spawn. O(n).
  [[nodiscard]] std::vector<const Worker*> workers() const;
  [[nodiscard]] std::size_t alive() const { return alive_; }
  // Modern workers that are ready: what upstream counts as ACKs.
  [[nodiscard]] std::size_t modern_ready() const { return modern_ready_.size(); }
  [[nodiscard]] std::size_t ready() const { return modern_ready_.size() + old_ready_.size(); }
  [[nodiscard]] std::size_t starting() const { return modern_starting_.size(); }
  [[nodiscard]] std::size_t old_unsignaled() const {
    return old_ready_.size() + old_starting_.size();
  }
  // Whether LoadSeen is wanted, some times a second.
  [[nodiscard]] bool wants_load() const {
    return config_.workers_max > 0 && ledger_.respawn && !ledger_.failed;
  }
  // Versions that a living worker has or that a spawn may still ask for.
  [[nodiscard]] std::set<Version> versions_in_use() const;

  // Slots that have had deaths, with --flapping.
  [[nodiscard]] const std::map<Slot, SlotTrouble>& troubles() const { return troubles_; }
  [[nodiscard]] std::size_t paused() const { return paused_; }
  // What was said before then may not have been heard.
  [[nodiscard]] Instant listening_since() const { return listening_since_; }

  // What changed since the last call, for the snapshot.
  struct Changes {
    bool ledger = false;
    bool config = false;
    std::vector<WorkerId> changed;
    std::vector<WorkerId> gone;
    std::vector<SlotTrouble> slots;  // an empty one is forgotten
  };
  [[nodiscard]] Changes take_changes();

 private:
  struct ByAge {
    bool operator()(const WorkerId& left, const WorkerId& right) const {
      return left.epoch < right.epoch;
    }
  };
  using Bucket = std::set<WorkerId, ByAge>;
  static constexpr Duration kAckWarningEvery = std::chrono::minutes{1};
  struct Entry {
    Worker worker;
    Bucket* bucket = nullptr;
    std::optional<Instant> timer;
    std::int64_t ack_warnings = 0;  // whole minutes without an ACK that were warned of
    bool dirty = false;
    Vitals vitals;
  };

  void on(const event::Started& event, Instant now);
  void on(const event::TimerDue& event, Instant now);
  void on(const event::Spawned& event, Instant now);
  void on(const event::SpawnFailed& event, Instant now);
  void on(const event::Exited& event, Instant now);
  void on(const event::Acked& event, Instant now);
  void on(const event::Pinged& event, Instant now);
  void on(const event::StatusSaid& event, Instant now);
  void on(const event::Sampled& event, Instant now);
  void on(const event::Probed& event, Instant now);
  void on(const event::Examined& event, Instant now);
  void on(const event::HookEnded& event, Instant now);
  void on(const event::Replace& event, Instant now);
  void on(const event::SetNumber& event, Instant now);
  void on(const event::Upgrade& event, Instant now);
  void on(const event::RollBack& event, Instant now);
  void on(const event::Stop& event, Instant now);
  void on(const event::Quit& event, Instant now);
  void on(const event::SignalAll& event, Instant now);
  void on(const event::LoadSeen& event, Instant now);
  void on(const event::Reconfigured& event, Instant now);

  // roster.cpp: who is where
  Entry* entry(WorkerId worker);
  void place(Entry& entry);  // into the bucket that its state and version say
  void rebucket_all();
  void set_timer(Entry& entry, std::optional<Instant> at);
  void schedule(Entry& entry);  // the timer that its state asks for
  [[nodiscard]] std::optional<Instant> ack_due(const Entry& entry) const;
  [[nodiscard]] std::optional<Instant> stop_due(const Worker& worker) const;
  void touch(Entry& entry);
  void remove(Entry& entry);
  Slot take_lowest_slot();
  Entry& insert(Worker worker);
  template <typename Visit>
  void each_by_age(Visit visit);

  // pool.cpp
  void become_ready(Entry& entry, AckMode by, Instant now);
  void count_death_before_ack();
  void count_death_after_ack(const Worker& worker, Instant now);
  [[nodiscard]] bool dying_quickly(Instant now) const;
  void on_worker_timer(Entry& entry, Instant now);
  void kill(Entry& entry, Instant now);
  // kSent: the kernel has delivered the signal; kAtOnce: no hook is waited for.
  enum class Stopping { kUsual, kSent, kAtOnce };
  void stop_workers(const std::vector<WorkerId>& workers, int signal, Instant now,
                    Stopping how = Stopping::kUsual);
  bool run_hook_before_stop(Entry& entry, int signal, Stopping how);
  void go_down(int signal, Instant now, Stopping how);
  void end_hook(Worker& worker);
  std::vector<WorkerId> oldest(const Bucket& bucket, std::size_t count) const;
  void note(Note note) { actions_.emplace_back(std::move(note)); }
  void recover();

  // health.cpp: heartbeats, probes, samples
  static void note_request(Entry& entry, const std::string& id, bool busy, Instant now);
  [[nodiscard]] std::optional<Instant> silent_at(const Worker& worker) const;
  [[nodiscard]] std::optional<Instant> slow_at(const Worker& worker) const;
  [[nodiscard]] std::optional<Instant> old_at(const Worker& worker) const;
  [[nodiscard]] std::optional<Instant> probe_due(Entry& entry) const;
  [[nodiscard]] std::optional<Instant> health_due(Entry& entry) const;
  [[nodiscard]] std::optional<Instant> examined_by(const Worker& worker) const;
  bool check_health(Entry& entry, Instant now);
  void take_samples(Instant now);
  void plan_samples(Instant now);
  bool judge(Entry& entry, Measure measure, std::uint64_t value, Instant now);
  void ail(Entry& entry, Ailment ailment, std::string complaint, Instant now);
  void condemn(Entry& entry, Ailment ailment, std::string complaint, bool at_once, Instant now);
  void listen_anew(Instant now);

  // recycling.cpp: replacing ailing workers, and slots that are paused
  void file(Entry& entry);
  void unfile(WorkerId worker);
  [[nodiscard]] std::size_t wanted() const;
  void set_recycling(WorkerId worker, bool recycling);
  void leave_recycling_to_the_upgrade();
  void advance_recycling(Instant now);
  void count_flap(Slot slot, Instant now);
  [[nodiscard]] bool is_paused(Slot slot) const;
  void resume(SlotTrouble& trouble);
  void resume_slots(Instant now);
  [[nodiscard]] std::optional<Instant> next_resume() const;
  void forget_troubles();

  // spinup.cpp
  void settle(Instant now);
  void replenish(Instant now);
  bool may_spawn(const Bucket& starting, Instant now);  // `starting`: what max_unacked counts
  void start_missing(std::optional<Instant> announced, Instant now);
  void replace_old(Instant now);
  void spawn(Version version, Instant now);
  [[nodiscard]] Duration spinup_interval(Instant now) const;
  [[nodiscard]] std::size_t missing() const;
  void finish_if_over();

  // upgrade.cpp
  void begin_upgrade(UpgradeProgress progress, Instant now);
  void retarget(Version version);
  void advance_upgrade(Instant now);
  void finish_upgrade(Instant now);
  void fail_upgrade(std::string reason, Instant now);
  void count_upgrade_failure(const Worker& worker, const std::string& how, Instant now,
                             bool hopeless = false);
  [[nodiscard]] std::uint32_t canaries() const;
  void cull(Instant now);

  Config config_;
  Ledger ledger_;
  std::vector<std::unique_ptr<Entry>> slots_;
  std::set<std::uint32_t> free_slots_;  // but for those that are paused
  std::size_t alive_ = 0;
  Bucket modern_starting_;  // Spawning, Starting
  Bucket modern_ready_;
  Bucket old_starting_;
  Bucket old_ready_;
  Bucket stopping_;
  // Of the above: modern, ready and in need of a replacement; those whose replacement is on its
  // way; those that were told to stop as theirs is ready.
  Bucket ailing_;
  Bucket recycling_;
  Bucket recycled_;
  std::map<Slot, SlotTrouble> troubles_;
  std::size_t paused_ = 0;  // slots
  std::set<Slot> slots_changed_;
  bool restored_ = false;    // and has not made a step yet
  Instant listening_since_;  // silence counts from here on
  std::optional<Instant> sample_at_;
  std::size_t sample_cursor_ = 0;
  std::set<std::pair<Instant, WorkerId>> timers_;
  std::optional<Instant> spinup_at_;
  std::optional<Instant> canary_at_;
  Scaling scaling_;
  std::vector<Action> actions_;
  std::vector<WorkerId> dirty_;
  std::vector<WorkerId> gone_;
  bool ledger_dirty_ = true;
  bool config_dirty_ = true;
};

}  // namespace einhorn::pool
