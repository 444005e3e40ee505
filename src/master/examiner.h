// What a worker that hangs was doing: its stack, before it is told to stop.
//
// eu-stack (Debian's elfutils), where it is installed, prints the stacks of all its threads; it runs
// as a process of its own and has two seconds. Then the worker gets --dump-signal, for programs that
// print where they are themselves (Python's faulthandler, Go's SIGQUIT), and a moment to do so. What
// eu-stack said goes into the log and is kept, with why the worker was condemned, for `state`: of
// the last few such workers, until this master is replaced.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "master/log.h"
#include "master/report.h"
#include "os/kernel.h"
#include "wire/snapshot.h"

namespace einhorn::master {

class Examiner {
 public:
  struct Hooks {
    std::function<void(WorkerId)> done;       // the worker may be told to stop
    std::function<void(Pid)> started;         // a process whose end nobody waits for
    std::function<bool(WorkerId, int)> send;  // a signal to a worker. False: it is gone
    std::function<bool()> has_guard;          // who tells of the end of processes
    std::function<void(WorkerId, Pid, const std::vector<std::string>&)> seen;  // a stack
  };

  Examiner(os::Kernel& kernel, Log& log, const wire::Settings& settings, Hooks hooks);
  ~Examiner();
  Examiner(const Examiner&) = delete;
  Examiner& operator=(const Examiner&) = delete;

  // Where eu-stack is; says so if it is nowhere. Only for pools that may need it.
  void find_tool(bool dumps);

  // Notes that somebody was condemned.
  void record(const pool::note::Condemned& condemned, Pid pid, Instant now);
  // `dump_signal` 0: none. hooks.done follows, from turn() or from on_child_ended().
  void examine(WorkerId worker, Pid pid, int dump_signal, int keep_below, Instant now);
  // True: it was a process of ours.
  bool on_child_ended(Pid pid, os::Ended how, Instant now);
  void turn(Instant now);
  [[nodiscard]] std::optional<Instant> next_deadline() const;

  // The oldest one first.
  [[nodiscard]] const std::deque<Casualty>& casualties() const { return casualties_; }

 private:
  struct Case {
    WorkerId worker;
    Pid pid = 0;
    int dump_signal = 0;
    Pid tool = 0;    // eu-stack; 0: it does not run (any more)
    int pidfd = -1;  // of it
    int output = -1;
    Instant deadline;  // of what is being done now
    bool dumped = false;
  };

  bool start_tool(Case& examined, int keep_below);
  void end_tool(Case& examined, const std::string& trouble);
  void go_on(Case& examined, Instant now);
  void keep(const Case& examined, const std::string& text, const std::string& trouble);
  void finish_due(Instant now);

  os::Kernel& kernel_;
  Log& log_;
  const wire::Settings& settings_;
  Hooks hooks_;
  std::string tool_;  // "" none
  std::vector<Case> cases_;
  std::deque<Casualty> casualties_;
};

}  // namespace einhorn::master
