// Hooks, as models: commands that do what they are for, quickly or slowly, that fail, that hang until
// they are told to end or killed, that can't be started at all.
//
// They hold the pipe that they write to, as everybody does who runs, and write some lines.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>

#include "os/kernel.h"
#include "sim/files.h"
#include "sim/process.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"

namespace einhorn::sim {

class Hooks {
 public:
  explicit Hooks(World& world) : world_(world) {}

  [[nodiscard]] static bool is_one(const os::SpawnSpec& spec);
  Result<os::Spawned> start(SimulatedKernel& by, const os::SpawnSpec& spec);
  void on_signal(const ProcessPtr& hook, int signal);
  // A worker is started: its hook before-start must have ended well since the last one in that slot,
  // which was another worker (the start of one may be lost, and is tried again then).
  void on_worker_started(WorkerId worker);
  void forget(const ProcessPtr& dead);
  void clear() { outputs_.clear(); }
  [[nodiscard]] std::size_t started() const { return started_; }

 private:
  void end_after(const ProcessPtr& process, Duration delay, os::Ended how);

  World& world_;
  std::map<Pid, std::shared_ptr<OutputEnd>> outputs_;
  std::map<Pid, std::uint32_t> before_start_;  // of processes, and for which slots they stand
  std::set<std::uint32_t> passed_;             // slots
  std::map<std::uint32_t, Epoch> last_;        // the last worker that was started in a slot
  std::set<Pid> deaf_;
  std::size_t started_ = 0;
};

}  // namespace einhorn::sim
