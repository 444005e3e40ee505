// The machine that a simulated pool lives on: its clock, what is going to happen, its processes.
//
// Events are ordered by (time, order of their making), so that a life depends on its seed alone.
// The clock moves only from one event to the next.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/instant.h"
#include "sim/files.h"
#include "sim/plan.h"
#include "sim/process.h"
#include "sim/random.h"
#include "sim/trace.h"

namespace einhorn::sim {

// Thrown where an invariant does not hold; ends the life.
struct Violation {
  std::string invariant;
  std::string what;
};

class World {
 public:
  World(std::uint64_t seed, std::FILE* out);

  [[nodiscard]] Instant now() const { return now_; }
  void at(Instant when, std::function<void()> what);
  void after(Duration delay, std::function<void()> what) { at(now_ + delay, std::move(what)); }
  void forget_events() { events_ = {}; }
  [[nodiscard]] bool has_events() const { return !events_.empty(); }
  [[nodiscard]] Instant next_event() const { return events_.top().at; }
  void advance_to(Instant when);
  // The next event, at its time.
  void run_event();

  void note(std::string_view who, std::string_view what) { trace.add(now_, who, what); }
  [[noreturn]] void fail(std::string invariant, std::string what);
  void expect(bool holds, std::string_view invariant, const std::string& what) {
    if (!holds) {
      fail(std::string(invariant), what);
    }
  }

  // The same from where nothing may be thrown: the life ends at its next step.
  void report(std::string_view invariant, const std::string& what);
  void fail_if_reported();

  // The guard that lives; 0: there is none.
  [[nodiscard]] Pid guard_pid() const { return guard_ && !guard_->dead ? guard_->pid : 0; }
  void set_guard(ProcessPtr guard) { guard_ = std::move(guard); }

  ProcessPtr start_process(ProcessKind kind, Pid parent);
  // Null: there is none (any more).
  [[nodiscard]] ProcessPtr find(Pid pid) const;
  [[nodiscard]] const std::map<Pid, ProcessPtr>& processes() const { return processes_; }
  // A zombie from now on if its parent is a guard or a master; all others reap at once. Whoever
  // loses its parent becomes a child of the guard above it, or of init.
  void end(const ProcessPtr& process, os::Ended how);
  void reap(const ProcessPtr& process);
  // Who is its parent when that one is gone: the guard above it, or init.
  [[nodiscard]] Pid heir_of(const ProcessPtr& process) const;
  // To a process, or to everybody in its group.
  void deliver(const ProcessPtr& to, int signal, bool group);

  void lose_snapshot() {
    snapshot_lossy = true;
    ++snapshots_lost;
  }

  // What is told about every end of a process, about those of the guard's children, and about
  // signals to a process.
  std::function<void(const ProcessPtr&)> on_ended;
  std::function<void(const ProcessPtr&)> on_child_ended;
  std::function<void(const ProcessPtr&, int)> on_signal;
  // A zygote has forked a worker of that slot.
  std::function<void(WorkerId)> on_forked;
  // The acting master is to die that many steps from now.
  std::function<void(std::uint64_t)> strike_master;

  Random random;
  Trace trace;
  Census census;
  Groups groups;
  Plan plan;
  WallOffset wall{1'790'000'000'000'000'000};
  bool faults = true;  // false: nothing bad happens any more
  bool snapshot_full = false;
  // Something could not be written down, and no snapshot that the guard has makes up for it.
  bool snapshot_lossy = false;
  std::uint64_t snapshots_lost = 0;  // writes that failed
  // Masters that acted and died with their guard, before that had heard of them.
  std::uint64_t successors_lost = 0;
  bool no_descriptors = false;
  bool no_processes = false;
  std::uint32_t queued = 0;  // connections that wait in each of the program's sockets
  int program = 0;           // the version of Einhorn that is installed
  bool over = false;         // guard and masters have left

 private:
  struct Event {
    Instant at;
    std::uint64_t order = 0;
    std::shared_ptr<std::function<void()>> what;
    bool operator<(const Event& other) const {
      return at != other.at ? at > other.at : order > other.order;
    }
  };

  Instant now_{Duration{1'000'000'000'000}};
  std::uint64_t next_order_ = 0;
  std::priority_queue<Event> events_;
  std::map<Pid, ProcessPtr> processes_;
  ProcessPtr guard_;
  Pid last_given_ = 99;
  std::optional<Violation> reported_;
};

}  // namespace einhorn::sim
