// The control groups of a pool (--cgroup-memory, -cpu, -pids): one for the pool or one for each
// worker, in each hierarchy that is used (os/cgroup.h).
//
// The pool's directories are made by boot and noted in the settings. A worker's group beneath is
// named after its epoch, is made before the worker is started, and the worker joins it before its
// program begins. So nothing more has to be written down: whatever group belongs to no living
// worker is removed, as soon as nobody is in it. A group that can't be made is said, and the worker
// runs without it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "master/log.h"
#include "os/cgroup.h"
#include "os/kernel.h"
#include "wire/snapshot.h"

namespace einhorn::master {

// For boot: finds the controllers and makes the pool's directories. Says in one line what there is
// and what is not. Errors: none; without any controller the pool runs without groups.
void make_pool_groups(wire::Settings& settings, Pid guard, Log& log);
void remove_pool_groups(const wire::Settings& settings);

class Cgroups {
 public:
  Cgroups(os::Kernel& kernel, Log& log, const wire::Settings& settings);

  // `alive`: those whose groups stay; all others are removed.
  void start(const std::set<Epoch>& alive, Instant now);
  void before_spawn(WorkerId worker, os::SpawnSpec& spec);
  // It is dead, or was never started. Whether the kernel has killed something of it for want of
  // memory; its group goes.
  bool ended(WorkerId worker, Instant now);
  // The pool is over.
  void leave();

  [[nodiscard]] std::optional<Instant> next_deadline() const { return due_; }
  void turn(Instant now);

 private:
  struct Place {
    std::string directory;  // of the pool
    os::CgroupFiles files;  // of a group with the limits
    bool memory = false;
  };
  [[nodiscard]] std::string path(const Place& place, Epoch worker) const;

  os::Kernel& kernel_;
  Log& log_;
  const wire::Settings& settings_;
  std::vector<Place> places_;
  std::uint64_t pool_kills_ = 0;  // counted so far, where the group is the pool's
  std::set<std::string> left_;    // directories that somebody is in still
  std::optional<Instant> due_;
  Duration delay_{0};
};

}  // namespace einhorn::master
