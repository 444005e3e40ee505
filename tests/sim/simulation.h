// One simulated life of a pool, from one seed: the real master over a simulated machine.
//
// First the faults and commands of the plan come, for a while; then nothing bad happens any more
// and the pool has to get where it should be within a bound; then it has to be quiet; then it is
// stopped and must leave nothing behind.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "sim/clients.h"
#include "sim/guard_process.h"
#include "sim/hooks.h"
#include "sim/invariants.h"
#include "sim/master_process.h"
#include "sim/new_guard.h"
#include "sim/probers.h"
#include "sim/readers.h"
#include "sim/subscribers.h"
#include "sim/supervisors.h"
#include "sim/workers.h"
#include "sim/world.h"
#include "sim/zygotes.h"

namespace einhorn::sim {

struct Outcome {
  bool held = true;
  std::string invariant;  // that did not hold
  std::string what;
  std::uint64_t hash = 0;
  std::deque<std::string> last;  // lines of the trace
  // What happened in it, for a report.
  std::uint64_t lines = 0;
  std::uint64_t masters = 0;
  std::uint64_t workers = 0;
  Duration lived{};
};

// `out` gets the whole trace; null: nobody does.
[[nodiscard]] Outcome simulate(std::uint64_t seed, std::FILE* out);

class Simulation final : public Host {
 public:
  Simulation(std::uint64_t seed, std::FILE* out);
  ~Simulation() override;

  // Throws Violation.
  void live();
  void finish(Outcome& outcome) const;

  // --- Host
  Result<os::Spawned> start_program(SimulatedKernel& by, const os::SpawnSpec& spec) override;
  void on_master_signals(SimulatedKernel& by, const ProcessPtr& to, int signal,
                         bool by_pidfd) override;
  void on_master_writes(SimulatedKernel& by, std::string_view bytes) override;
  void on_master_reads(std::string_view snapshot) override;
  void on_strike(SimulatedKernel& at) override;
  void run_until_ready(SimulatedKernel& kernel, std::optional<Instant> deadline) override;
  WorkerId worker_asked_for(SimulatedKernel& by, std::string_view order) override;
  Result<std::string> deploy() override { return workers_.deploy(); }

 private:
  void set_up();
  void plan_blow();
  void blow(Blow kind);
  void blow_at_requests(Blow kind);
  bool may_kill_master();
  bool may_kill_guard();
  void calm();
  void say_number();
  void settle();
  void rest();
  void stop();

  // One step, not beyond that time. False: nothing is left to happen until then.
  bool step(Instant until);
  void run_until(Instant until);
  void turn(MasterProcess& master);
  [[nodiscard]] bool handed_on(const MasterProcess& master) const;
  void poke();
  void start_master(const ProcessPtr& process, FilePtr control, bool successor);
  void create_master(const ProcessPtr& process);
  Result<os::Spawned> start_beside(SimulatedKernel& by, const os::SpawnSpec& spec);
  Result<os::Spawned> start_tool(SimulatedKernel& by, const os::SpawnSpec& spec);
  WorkerId worker_of(SimulatedKernel& by, const os::SpawnSpec& spec);
  void kill(MasterProcess& master, os::Ended how);
  void on_ended(const ProcessPtr& process);
  void note_lost_successor(const ProcessPtr& dead);
  void after_kill();
  MasterProcess* any_master();
  MasterProcess* of(const SimulatedKernel& kernel);
  MasterProcess* acting();
  void forget_dead_masters();

  World world_;
  std::shared_ptr<Listener> command_;
  std::shared_ptr<DatagramSocket> notify_;
  Workers workers_;
  Zygotes zygotes_;
  Readers readers_;
  Supervisors supervisors_;
  Probers probers_;
  Hooks hooks_;
  Clients clients_;
  Subscribers subscribers_;
  GuardProcess guard_;
  NewGuard new_guard_;
  Invariants invariants_;
  std::vector<std::unique_ptr<MasterProcess>> masters_;
  bool lost_ = false;  // guard and masters are dead, and with them the pool
  std::uint64_t masters_started_ = 0;
  std::uint64_t workers_started_ = 0;
  std::optional<Instant> successor_died_at_;
  bool unnumbered_ = false;  // a worker was started that could not be written down
  std::uint64_t unknown_epoch_ = kUnknownEpochs;
};

}  // namespace einhorn::sim
