// Which process is which worker: pids, pidfds and who is whose child.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/ids.h"
#include "os/kernel.h"

namespace einhorn::master {

class Roster {
 public:
  struct Process {
    WorkerId worker;
    Pid pid = 0;
    int pidfd = -1;         // ours
    bool orphan = false;    // child of a dead guard: nobody learns how it ends
    bool own = false;       // our own child: there was no guard when it was spawned
    bool reported = false;  // its death was seen; how it ended is not known yet
  };

  static constexpr std::uint64_t kWorkerToken = std::uint64_t{3} << 40U;

  explicit Roster(os::Kernel& kernel) : kernel_(kernel) {}
  ~Roster();
  Roster(const Roster&) = delete;
  Roster& operator=(const Roster&) = delete;

  // Takes the pidfd over and watches it.
  void add(const Process& process);
  void remove(WorkerId worker);

  [[nodiscard]] Process* find(WorkerId worker);
  [[nodiscard]] Process* find_slot(std::uint32_t slot);
  // The oldest worker of that pid: its death is always heard of before the pid is used again.
  [[nodiscard]] std::optional<WorkerId> find_pid(Pid pid) const;
  // The worker that this process is or descends from. A peer is known by a pid, which may have gone
  // to another process since: a user other than root and our own is believed only while that
  // process is that user's.
  [[nodiscard]] std::optional<WorkerId> worker_of(const os::Peer& peer);
  [[nodiscard]] Pid pid_of(WorkerId worker) const;

  // A process that never became a worker, but whose end will be reported.
  void expect_ghost(Pid pid) { ghosts_.insert(pid); }
  [[nodiscard]] bool forget_ghost(Pid pid) { return ghosts_.erase(pid) > 0; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  os::Kernel& kernel_;
  std::vector<std::optional<Process>> slots_;
  std::multimap<Pid, WorkerId> by_pid_;
  std::set<Pid> ghosts_;
  std::size_t size_ = 0;
};

}  // namespace einhorn::master
